// What a Rollout is and does, from its object; the same words as `tulle rollout status`.

import { html } from "./vendor/preact.js";

export const API = "/apis/tulle.dev/v1alpha1";
export const STATES = { Succeeded: "healthy", Failed: "failing", Paused: "degraded", Refused: "failing", Waiting: "idle", Progressing: "healthy", Promoting: "healthy", Finalising: "healthy", Terminating: "idle" };
const COMMAND = "tulle.dev/rollout";

export function rollout(object) {
  const { spec, status = {}, metadata } = object, analysis = spec.analysis ?? {};
  const refused = (status.conditions ?? []).filter((one) => one.status === "False").map((one) => one.message).join("; ");
  const versions = [spec.stable, spec.candidate].map((one) => one.version ?? one.service);
  return {
    object, id: `${metadata.namespace}/${metadata.name}`, name: metadata.name, namespace: metadata.namespace, service: `${metadata.namespace}/${spec.targetRef.name}`,
    strategy: spec.strategy ?? "Canary", phase: refused ? "Refused" : status.phase ?? "new", why: refused || status.message || "",
    stable: versions[0], candidate: versions[1], weight: status.weight ?? 0, step: status.step ?? 0, steps: steps(spec), rounds: status.iterations ?? 0, iterations: analysis.iterations ?? 1,
    failed: status.failedChecks ?? 0, threshold: analysis.threshold ?? 5, checked: Date.parse(status.checkedAt ?? "") / 1000 || 0, suspended: Boolean(spec.suspend), mirroring: status.mirroring === "There", mirror: Boolean(analysis.mirror),
  };
}

// The shares of the candidate, as `core/rollout/plan.py` has them; the first is a mirror's where there is one.
export function steps(spec) {
  const analysis = spec.analysis ?? {}, strategy = spec.strategy ?? "Canary";
  if (spec.skipAnalysis) return [100];
  if (strategy !== "Canary") return strategy === "BlueGreen" ? [0, 100] : [100, 100];
  const found = [...(analysis.stepWeights ?? [])];
  if (!found.length) {
    const most = analysis.maxWeight ?? 100, step = analysis.stepWeight ?? 100;
    for (let weight = step; weight < most; weight += step) found.push(weight);
    found.push(most);
  }
  const promotion = analysis.stepWeightPromotion;
  for (let weight = found.at(-1) + promotion; promotion && weight < 100; weight += promotion) found.push(weight);
  return [...(analysis.mirror ? [0] : []), ...found, 100];
}

function named(of, weight, at) {
  if (at === 0 && of.mirror) return "copies";
  return at === 0 && of.strategy === "ABTest" ? "test" : `${weight}%`;
}

export function Steps({ of }) {
  const over = of.phase === "Succeeded";
  return html`<ol class="steps" aria-label="Steps">${of.steps.map((weight, at) => html`<li class=${over || at < of.step ? "done" : at === of.step && ["Progressing", "Promoting", "Finalising"].includes(of.phase) ? "now" : ""} aria-current=${at === of.step && !over ? "step" : undefined}>${named(of, weight, at)}</li>`)}</ol>`;
}

// What `tulle rollout WORD` writes.
export function change(word) {
  const body = {};
  if (word !== "pause") body.metadata = { annotations: { [COMMAND]: `${word} ${(Date.now() / 1000).toFixed(3)}` } };
  if (word !== "abort") body.spec = { suspend: word === "pause" };
  return body;
}

// Which of them would do anything.
export function words(of) {
  if (of.phase === "Refused" || of.phase === "Terminating") return [];
  if (of.phase === "Paused" || of.phase === "Failed") return ["resume", ...(of.phase === "Paused" ? ["promote", "abort"] : ["promote"])];
  return of.phase === "Succeeded" || of.phase === "Finalising" ? ["abort"] : ["promote", "pause", "abort"];
}
