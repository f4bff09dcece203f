// The control planes themselves: who leads, what they count.

import { html } from "../vendor/preact.js";
import { ask, get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago, cores, megabytes, ms } from "../format.js";
import { losses, parsed, sum, within } from "../health.js";
import { Command, Health, Panel, Table, Tile, Wait } from "../parts.js";
import { syncOf } from "./proxies.js";

const PLANES = [
  { name: "name", label: "Control plane", show: (one) => one.name },
  { name: "api", label: "API", show: (one) => one.api },
  { name: "xds", label: "xDS", show: (one) => one.xds },
  { name: "version", label: "Version", show: (one) => one.version },
  { name: "started", label: "Started", number: true, show: (one) => ago(one.started) },
];
const COLUMNS = [
  { name: "name", label: "Metric", by: (one) => one.name, show: (one) => html`<code>${one.name}</code>` },
  { name: "labels", label: "Labels", by: (one) => one.labels, show: (one) => one.labels },
  { name: "value", label: "Value", number: true, by: (one) => one.value, show: (one) => one.value },
];

export default function Mesh() {
  const found = useData((signal) => get("/tulle/v1/status", {}, signal), []);
  const proxies = useData((signal) => get("/tulle/v1/proxies", {}, signal), []);
  const metrics = useData(async (signal) => parsed((await ask("GET", "/metrics", { accept: "text/plain", signal })).text), []);
  const status = found.data, states = (proxies.data?.proxies ?? []).map((one) => syncOf(one).of);
  return html`<div><h1>Mesh health</h1><${Wait} of=${found}>${status ? html`<div class="tiles"><${Tile} title="Version" value=${status.version} /><${Tile} title="Revision" value=${status.revision} /><${Tile} title="Trust domain" value=${status.trustDomain} /><${Tile} title="Leader" value=${status.leader || "–"} /><${Tile} title="Proxies" value=${states.length} note=${`${states.filter((one) => one === "healthy").length} synced`} of=${states.includes("failing") ? "failing" : ""} /><${Tile} title="Started" value=${ago(status.started)} /><${Tile} title="Figures" value=${status.figures?.prometheus ? "Prometheus" : "own window"} note=${status.figures?.notice || status.figures?.prometheus} of=${status.figures?.notice ? "failing" : ""} /></div>
    <${Panel} title="Control planes"><${Table} caption="Control planes" columns=${PLANES} rows=${status.controlPlanes} id=${(one) => one.name} /><${Command} line="tulle check" /><//>` : null}<//>
    <${Wait} of=${metrics}>${metrics.data ? html`<${Work} of=${metrics.data} started=${status?.started ?? 0} /><${Losses} of=${metrics.data} />` : null}<//>
    <${Panel} title="What the control plane counts"><${Wait} of=${metrics}><${Table} caption="Metrics" columns=${COLUMNS} rows=${(metrics.data ?? []).filter((one) => !one.name.startsWith("tulle_certificate_"))} id=${(one) => one.name + one.labels} first=${["name", false]} /><//><${Command} line="kubectl get --raw /metrics" /><//></div>`;
}

// How soon this control plane does its work.
function Work({ of, started }) {
  const soon = (seconds) => (seconds === null ? "–" : seconds === Infinity ? "above 30 s" : `≤ ${ms(1000 * seconds)}`);
  const late = within(of, "pilot_proxy_convergence_time", 0.99);
  const pushes = sum(of, "pilot_xds_pushes"), queue = sum(of, "tulle_xds_queue"), waiting = sum(of, "tulle_xds_waiting");
  return html`<div class="tiles"><${Tile} title="Change to proxy, p99" value=${soon(late)} note=${`p50 ${soon(within(of, "pilot_proxy_convergence_time", 0.5))}`} of=${late > 5 ? "degraded" : ""} />
    <${Tile} title="Answers sent" value=${pushes} note=${`${sum(of, "pilot_total_xds_rejects")} refused`} of=${sum(of, "pilot_total_xds_rejects") ? "degraded" : ""} />
    <${Tile} title="Behind" value=${waiting} note=${`proxies; ${queue} answers wait, ${sum(of, "tulle_feed_queue")} changes`} of=${queue > 1000 ? "degraded" : ""} />
    <${Tile} title="Certificates signed" value=${sum(of, "citadel_server_success_cert_issuance_count")} note=${`of ${sum(of, "citadel_server_csr_count")}`} />
    <${Tile} title="Store writes, p99" value=${soon(within(of, "tulle_store_seconds", 0.99, 'operation="write"'))} />
    <${Tile} title="Kinds of call kept" value=${sum(of, "tulle_window_kinds")} note=${megabytes(sum(of, "tulle_window_bytes"))} of=${sum(of, "tulle_window_dropped_total") ? "degraded" : ""} />
    <${Tile} title="Memory" value=${megabytes(sum(of, "process_resident_memory_bytes"))} note=${`CPU ${cores(sum(of, "process_cpu_seconds_total") / Math.max(1, Date.now() / 1000 - started))} since it began`} /></div>`;
}

function Losses({ of }) {
  const found = losses(of);
  return html`<${Panel} title="Refused, dropped, lost">${found.length ? html`<ul class="plain">${found.map((one) => html`<li><${Health} of="degraded" word=${false} /> <strong>${one.value}</strong> ${one.what} ${one.view ? html`<a href=${link([one.view])}>look</a> ` : null}<code class="faint">${one.name}</code></li>`)}</ul>` : html`<p class="healthy">Nothing since this control plane began.</p>`}<${Command} line="tulle check" /><//>`;
}
