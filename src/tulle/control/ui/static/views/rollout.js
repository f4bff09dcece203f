// One roll-out: its steps, what both versions do, what was decided and why, and what a person can do about it.

import { html, useState } from "../vendor/preact.js";
import { ask, get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago, clock, shell } from "../format.js";
import { Command, figureColumns, Health, Panel, Table, Trouble, Wait } from "../parts.js";
import { API, change, rollout, STATES, Steps, words } from "../rollouts.js";

const SAID = {
  promote: "Give the candidate all of the traffic now, whatever its measurements say.",
  pause: "Give the stable version all of the traffic again, until it is resumed.",
  resume: "Begin the steps anew.",
  abort: "Give the stable version all of the traffic again, for good.",
};
const EVENTS = [
  { name: "time", label: "Last", number: true, by: (one) => Date.parse(one.lastTimestamp), show: (one) => html`<span title=${clock(Date.parse(one.lastTimestamp) / 1000)}>${ago(Date.parse(one.lastTimestamp) / 1000)}</span>` },
  { name: "reason", label: "What", by: (one) => one.reason, show: (one) => html`<${Health} of=${one.type === "Warning" ? "degraded" : "healthy"} word=${false} /> ${one.reason}` },
  { name: "count", label: "Times", number: true, by: (one) => one.count, show: (one) => one.count ?? 1 },
  { name: "message", label: "Why", show: (one) => one.message },
];

export default function Rollout({ path, seconds }) {
  const [namespace, name] = path, place = `${API}/namespaces/${encodeURIComponent(namespace)}/rollouts/${encodeURIComponent(name)}`;
  const found = useData((signal) => get(place, {}, signal), [place], (state) => state?.revision);
  const one = found.data ? rollout(found.data) : null;
  return html`<div><h1>${namespace}/${name} ${one ? html`<${Health} of=${STATES[one.phase] ?? "idle"} word=${false} /> ${one.phase}` : null}</h1>
    <${Wait} of=${found}>${one ? html`<${Panel} title="Steps"><p>${one.strategy}: <a href=${link(["service", ...one.service.split("/")])}>${one.service}</a> from ${one.stable} to ${one.candidate}, which has ${one.weight}%${one.mirroring ? " and copies of requests" : ""}.</p>
        <${Steps} of=${one} /><p class=${STATES[one.phase] === "failing" ? "failing" : ""}>${one.why}</p>
        <p class="faint">${one.failed} of ${one.threshold} failed checks${one.iterations > 1 ? `, check ${one.rounds + 1} of ${one.iterations}` : ""}${one.checked ? `, checked ${ago(one.checked)}` : ""}. <a href=${link(["object", "Rollout", namespace, name], { g: "tulle.dev" })}>Object and history</a></p>
        <${Command} line=${`tulle rollout status ${shell(name)} -n ${shell(namespace)} -w`} /><//>
      <${Actions} of=${one} place=${place} done=${found.again} /><${Versions} of=${one} seconds=${seconds} /><${Happened} namespace=${namespace} name=${name} uid=${found.data.metadata.uid} />` : null}<//></div>`;
}

// Each is asked twice: it moves traffic.
function Actions({ of, place, done }) {
  const [asked, set] = useState(""), [error, setError] = useState(null);
  const go = async () => {
    try {
      await ask("PATCH", `${place}?fieldManager=tulle-page`, { body: change(asked), type: "application/merge-patch+json" });
      setError(null);
    } catch (problem) { setError(problem); }
    set("");
    done();
  };
  const open = words(of);
  if (!open.length) return null;
  return html`<${Panel} title="By hand"><div class="actions">${open.map((word) => html`<button type="button" aria-pressed=${asked === word} onClick=${() => set(asked === word ? "" : word)}>${word}…</button>`)}</div>
    ${open.includes(asked) ? html`<p>${SAID[asked]}</p><div class="actions"><button type="button" class="main" onClick=${go}>Yes, ${asked}</button><button type="button" onClick=${() => set("")}>Cancel</button></div>
      <${Command} line=${`tulle rollout ${asked} ${shell(of.name)} -n ${shell(of.namespace)}`} />` : null}
    <${Trouble} error=${error} title="It was not done" /><//>`;
}

// Both versions' instances: the same figures for the same time.
function Versions({ of, seconds }) {
  const found = useData(async (signal) => {
    const [there, figures] = await Promise.all([get("/tulle/v1/telemetry/inventory", {}, signal), get("/tulle/v1/telemetry/figures", { by: "workload", seconds, points: 60 }, signal)]);
    const members = (id) => there.services.find((one) => one.id === id)?.workloads ?? [];
    const { stable, candidate } = of.object.spec;
    const side = (version, label) => (version.service ? members(`${of.namespace}/${version.service}`) : members(of.service).filter((id) => there.workloads.find((one) => one.id === id)?.version === version.version))
      .map((id) => { const row = figures.rows.find((one) => one.key.workload === id); return { id, label, ready: there.workloads.find((one) => one.id === id)?.ready, figures: row?.figures, series: row?.series }; });
    return [...side(stable, "stable"), ...side(candidate, "candidate")];
  }, [of.id, seconds]);
  const columns = [
    { name: "label", label: "Version", by: (row) => row.label, show: (row) => `${row.label} (${of[row.label]})` },
    { name: "id", label: "Workload", by: (row) => row.id, show: (row) => html`<a href=${link(["workload", ...row.id.split("/")])}>${row.id}</a>` },
    { name: "ready", label: "Ready", by: (row) => row.ready, show: (row) => html`<${Health} of=${row.ready === false ? "failing" : "healthy"} word=${false} /> ${row.ready === false ? "not ready" : "ready"}` },
    ...figureColumns(),
  ];
  return html`<${Panel} title="Both versions"><${Wait} of=${found}><${Table} caption="Both versions" columns=${columns} rows=${found.data ?? []} id=${(row) => `${row.label} ${row.id}`} first=${["label", true]} empty="Neither version has an instance." /><//><${Command} line=${`tulle stat ${shell(of.service)} -t ${seconds}s`} /><//>`;
}

function Happened({ namespace, name, uid }) {
  const query = { fieldSelector: `involvedObject.kind=Rollout,involvedObject.name=${name}` };
  const found = useData((signal) => get(`/api/v1/namespaces/${encodeURIComponent(namespace)}/events`, query, signal), [namespace, name], (state) => state?.revision);
  const rows = (found.data?.items ?? []).filter((one) => one.involvedObject.uid === uid);
  return html`<${Panel} title="What was decided, and why"><${Wait} of=${found}><${Table} caption="Events" columns=${EVENTS} rows=${rows} id=${(one) => one.metadata.name} first=${["time", true]} empty="Nothing in the last hour." /><//><${Command} line=${`tulle rollout history ${shell(name)} -n ${shell(namespace)}`} /><//>`;
}
