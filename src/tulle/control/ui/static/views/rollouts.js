// Roll-outs: how far each is, and why.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago } from "../format.js";
import { Command, Filter, Health, Panel, Table, Wait } from "../parts.js";
import { API, rollout, STATES, Steps } from "../rollouts.js";

const COLUMNS = [
  { name: "phase", label: "Phase", by: (one) => one.phase, show: (one) => html`<${Health} of=${STATES[one.phase] ?? "idle"} word=${false} /> ${one.phase}` },
  { name: "id", label: "Rollout", by: (one) => one.id, show: (one) => html`<a href=${link(["rollout", one.namespace, one.name])}>${one.id}</a>` },
  { name: "service", label: "Service", by: (one) => one.service, show: (one) => html`<a href=${link(["service", ...one.service.split("/")])}>${one.service}</a>` },
  { name: "strategy", label: "Strategy", by: (one) => one.strategy, show: (one) => one.strategy },
  { name: "versions", label: "From, to", show: (one) => `${one.stable} → ${one.candidate}` },
  { name: "weight", label: "Candidate", number: true, by: (one) => one.weight, show: (one) => `${one.weight}%` },
  { name: "steps", label: "Steps", show: (one) => html`<${Steps} of=${one} />` },
  { name: "failed", label: "Failed checks", number: true, by: (one) => one.failed, show: (one) => `${one.failed} of ${one.threshold}` },
  { name: "checked", label: "Checked", number: true, by: (one) => one.checked, show: (one) => ago(one.checked) },
  { name: "why", label: "Why", show: (one) => one.why },
];

export default function Rollouts({ namespace }) {
  const [filter, setFilter] = useState("");
  const place = namespace ? `${API}/namespaces/${encodeURIComponent(namespace)}/rollouts` : `${API}/rollouts`;
  const found = useData((signal) => get(place, {}, signal), [namespace], (state) => state?.revision);
  const rows = (found.data?.items ?? []).map(rollout).filter((one) => `${one.id} ${one.service}`.includes(filter));
  return html`<div><h1>Roll-outs</h1><${Panel} title="Roll-outs" more=${html`<${Filter} value=${filter} onInput=${setFilter} />`}>
    <${Wait} of=${found}><${Table} caption="Roll-outs" columns=${COLUMNS} rows=${rows} first=${["id", false]} id=${(one) => one.id} empty="Nothing is rolled out. tulle rollout init begins one." /><//>
    <${Command} line=${`tulle rollout status${namespace ? ` -n ${namespace}` : ""} -w`} /><//></div>`;
}
