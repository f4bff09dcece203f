// Recent traces: the slow and the failed ones are kept longer.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago, clock, ms, plural, shell } from "../format.js";
import { Command, Filter, Health, Panel, Table, Wait } from "../parts.js";

const COLUMNS = [
  { name: "start", label: "When", by: (one) => one.start, number: true, show: (one) => html`<span title=${clock(one.start)}>${ago(one.start)}</span>` },
  { name: "name", label: "Request", by: (one) => one.service ?? "", show: (one) => html`<a href=${link(["trace", one.trace])}>${one.service || "unknown"} ${one.name ?? ""}</a>` },
  { name: "duration", label: "Took", by: (one) => one.duration, number: true, show: (one) => ms(one.duration) },
  { name: "spans", label: "Spans", by: (one) => one.spans ?? 0, number: true, show: (one) => one.spans ?? 0 },
  { name: "errors", label: "Errors", by: (one) => one.errors ?? 0, number: true, show: (one) => (one.errors ? html`<${Health} of="failing" word=${false} /> ${one.errors}` : "") },
  { name: "services", label: "Who took part", show: (one) => (one.services ?? []).join(", ") },
];

export default function Traces({ seconds, query }) {
  const [service, setService] = useState(query.service ?? ""), [errors, setErrors] = useState(false), [least, setLeast] = useState(0);
  const found = useData((signal) => get("/tulle/v1/telemetry/traces", { service, errors: errors ? "true" : "", min_duration: least || "", seconds, limit: 200 }, signal), [service, errors, least, seconds]);
  const flags = `${service ? ` --service ${shell(service)}` : ""}${errors ? " --errors" : ""}${least ? ` --min-duration ${least}ms` : ""}`;
  if (found.error?.status === 404) return html`<h1>Traces</h1><p class="empty">This control plane keeps no traces.</p>`;
  return html`<div><h1>Traces</h1><${Panel} title="Traces" more=${html`<div class="actions"><${Filter} value=${service} onInput=${setService} label="Service" /><label>At least <select value=${least} onChange=${(event) => setLeast(Number(event.target.value))}>${[0, 10, 50, 100, 500, 1000].map((one) => html`<option key=${one} value=${one}>${one} ms</option>`)}</select></label><label><input type="checkbox" checked=${errors} onChange=${() => setErrors(!errors)} /> only with errors</label></div>`}>
    <${Wait} of=${found}><${Table} caption="Traces" columns=${COLUMNS} rows=${found.data?.traces ?? []} first=${["start", true]} id=${(one) => one.trace} empty="No trace is like that in this time." />
    ${found.data?.dropped ? html`<p class="degraded">${plural(found.data.dropped, "span")} had no room.</p>` : null}<//><${Command} line=${`tulle traces -t ${seconds}s${flags}`} /><//></div>`;
}
