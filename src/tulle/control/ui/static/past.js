// How an object was, change by change, and the way back.

import { html, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { useData } from "./hooks.js";
import { ago, clock, shell } from "./format.js";
import { kinds } from "./kinds.js";
import { Command, Panel, Trouble, Wait } from "./parts.js";
import { Difference, plain } from "./difference.js";
import { what } from "./changes.js";

export function Past({ kind, namespace, name, resource }) {
  const found = useData(async (signal) => {
    const place = resource || (await kinds()).filter((one) => one.kind === kind).map((one) => (one.group ? `${one.plural}.${one.group}` : one.plural))[0];
    return { place, ...(await get("/tulle/v1/history", { resource: place, namespace: namespace || undefined, name, limit: 50 }, signal)) };
  }, [kind, namespace, name, resource], (state) => state?.revision);
  const changes = found.data?.changes ?? [];
  return html`<${Panel} title="History"><${Wait} of=${found}>${changes.length ? changes.map((one) => html`<${Change} key=${one.revision} one=${one} place=${found.data.place} namespace=${namespace} name=${name} again=${found.again} />`) : html`<p class="empty">No change is kept.</p>`}<//>
    <${Command} line=${`tulle history ${shell(kind.toLowerCase())} ${shell(name)}${namespace ? ` -n ${shell(namespace)}` : ""} --diff`} /><//>`;
}

function Change({ one, place, namespace, name, again }) {
  const [plan, setPlan] = useState(null), [error, setError] = useState(null), [done, setDone] = useState(false);
  // Back to how it was before this change.
  const to = one.revision - 1;
  const asked = { revision: to, resource: place, namespace, name };
  const attempt = async (work) => { try { setError(null); await work(); } catch (problem) { setError(problem); } };
  const look = () => attempt(async () => setPlan(await post("/tulle/v1/rollback", { ...asked, dryRun: true })));
  const go = () => attempt(async () => { await post("/tulle/v1/rollback", { ...asked, plan: plan.plan }); setPlan(null); setDone(true); again(); });
  return html`<details><summary><strong>${what(one)}</strong> ${ago(one.time)} by ${one.author} <span class="faint" title=${clock(one.time)}>revision ${one.revision}${one.address ? ` from ${one.address}` : ""}</span></summary>
    <${Difference} before=${plain(one.before)} after=${plain(one.after)} label="What this change did" />
    <${Trouble} error=${error} title="It was not done" />${done ? html`<p class="healthy">It is as it was before this change.</p>` : null}
    ${plan ? html`<h3>This would be done</h3>${plan.changes.length ? plan.changes.map((step) => html`<p>${step.action} ${step.kind} ${step.name}</p><${Difference} before=${plain(step.before)} after=${plain(step.after)} />`) : html`<p class="empty">Nothing: it is as it was.</p>`}${plan.warnings.map((warning) => html`<p class="caution">${warning}</p>`)}
      <div class="actions"><button type="button" class="main" disabled=${!plan.changes.length} onClick=${go}>Roll back</button><button type="button" onClick=${() => setPlan(null)}>Leave it</button></div>`
      : html`<div class="actions"><button type="button" onClick=${look}>Back to before this change…</button></div>`}
    <${Command} line=${`tulle rollback ${shell(place)} ${shell(name)}${namespace ? ` -n ${shell(namespace)}` : ""} --to ${to}`} /></details>`;
}
