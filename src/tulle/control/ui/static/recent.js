// Single calls that were recorded, those that failed first, and why a request got its status.

import { html, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { useData } from "./hooks.js";
import { ago, shell } from "./format.js";
import { Command, Health, Panel, Table, Trouble, Wait } from "./parts.js";
import { Named } from "./named.js";

// As `core/model/recorded.py` has them: lists, in this order.
function read([shape, [count, estimate, , last, examples]]) {
  const [reporter, source, destination, service, , protocol, method, path, code, grpc, flags, details] = shape;
  return { id: JSON.stringify(shape), reporter, source, destination, service, protocol, method, path, code, grpc, flags, details, calls: Math.round(estimate || count[0]), last, example: examples?.[0]?.[0] ?? "" };
}

const bad = (one) => /^[5-9]|^0?$/.test(one.code) || one.code === "403" || one.code === "429" || (one.flags && one.flags !== "-");

// `query`: `{ destination }` or `{ source }`, a workload or a service.
export function Recent({ title, query, flag }) {
  const [asked, ask] = useState(null);
  const found = useData((signal) => get("/tulle/v1/telemetry/recorded", { ...query, seconds: 86400 }, signal), [JSON.stringify(query)]);
  const rows = (found.data?.rows ?? []).map(read).sort((one, other) => bad(other) - bad(one) || other.last - one.last);
  const columns = [
    { name: "last", label: "Last", number: true, by: (one) => one.last, show: (one) => ago(one.last) },
    { name: "seen", label: "Seen by", by: (one) => one.reporter, show: (one) => (one.reporter === "source" ? "the caller" : "the called") },
    { name: "from", label: "From", by: (one) => one.source, show: (one) => one.source || "unknown" },
    { name: "request", label: "Request", by: (one) => one.path, show: (one) => (one.protocol === "tcp" ? "connection" : `${one.method} ${one.path}`) },
    { name: "to", label: "To", by: (one) => one.destination, show: (one) => one.destination || one.service || "unknown" },
    { name: "status", label: "Status", by: (one) => one.code, show: (one) => html`<${Health} of=${bad(one) ? "failing" : "healthy"} word=${false} /> <span title=${one.details}>${one.code || "–"} ${one.flags === "-" ? "" : one.flags}${one.grpc && one.grpc !== "-" ? ` gRPC ${one.grpc}` : ""}</span>` },
    { name: "calls", label: "Calls", number: true, by: (one) => one.calls, show: (one) => one.calls },
    { name: "why", label: "Why", show: (one) => (one.example ? html`<button type="button" aria-label="Why ${one.method} ${one.path} got ${one.code}" onClick=${() => ask(one.example)}>why?</button>` : "") },
  ];
  if (found.error?.status === 404) return null;
  return html`<${Panel} title=${title}><${Wait} of=${found}><${Table} caption=${title} columns=${columns} rows=${rows} most=${20} empty="No call was recorded in the last day." />${asked ? html`<${Why} id=${asked} />` : null}<//>
    <${Command} line=${`tulle calls ${flag} ${shell(query.destination ?? query.source)}`} /><//>`;
}

function Why({ id }) {
  const found = useData((signal) => get("/tulle/v1/explain", { id }, signal), [id], () => "");
  const said = found.data;
  if (found.error) return html`<${Trouble} error=${found.error} title="It cannot be explained" />`;
  return html`<div class="caution" role="status">${said ? html`<p>${said.text}</p>${said.object ? html`<p><${Named} text=${said.object} /> ${said.field ?? ""}</p>` : null}<${Command} line=${`tulle explain ${shell(id)}`} />` : "Looking…"}</div>`;
}
