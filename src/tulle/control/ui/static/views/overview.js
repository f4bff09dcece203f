// How the mesh is: every service with the worst first, and beside it what was changed lately.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago, percent, plural, rate, reasons } from "../format.js";
import { Command, figureColumns, Filter, Health, Panel, Table, Tile, Wait } from "../parts.js";
import { Changes } from "../changes.js";

const SEVERE = { error: 0, warning: 1, info: 2 };
const RANK = { failing: 0, degraded: 1, healthy: 2, idle: 3 };

export async function services(namespace, seconds, signal) {
  const [there, counted] = await Promise.all([
    get("/tulle/v1/telemetry/inventory", { namespace }, signal),
    get("/tulle/v1/telemetry/figures", { by: "service", seconds, namespace, points: 30 }, signal),
  ]);
  const rows = new Map(there.services.map((one) => [one.id, { id: one.id, service: one, figures: null }]));
  for (const row of counted.rows) {
    const id = row.key.service;
    rows.set(id, { id, service: rows.get(id)?.service, figures: row.figures, series: row.series });
  }
  return { rows: [...rows.values()].map((row) => ({ ...row, ...health(row) })), begins: counted.begins, dropped: counted.dropped, workloads: there.workloads };
}

// By its calls, and by whether anybody is there to take them.
export function health({ service, figures }) {
  if (service?.endpoints && !service.ready) return { health: "failing", why: "no endpoint is ready" };
  const own = figures?.health ?? "idle";
  if (service && service.ready < service.endpoints && own !== "failing") return { health: "degraded", why: `${service.endpoints - service.ready} of ${service.endpoints} endpoints are not ready` };
  return { health: own, why: own === "failing" || own === "degraded" ? `${figures.failures} of ${figures.calls} calls failed: ${reasons(figures)}` : "" };
}

export const COLUMNS = [
  { name: "health", label: "Health", by: (row) => RANK[row.health], show: (row) => html`<span title=${row.why}><${Health} of=${row.health} /></span>` },
  { name: "name", label: "Service", by: (row) => row.id, show: (row) => html`<a href=${link(["service", ...row.id.split("/")])}>${row.id}</a>` },
  ...figureColumns(),
  { name: "ready", label: "Ready", number: true, by: (row) => row.service?.ready ?? -1, show: (row) => (row.service ? html`<span class=${row.service.ready < row.service.endpoints ? "degraded" : ""}>${row.service.ready}/${row.service.endpoints}</span>` : "–") },
];

export default function Overview({ namespace, seconds }) {
  const [filter, setFilter] = useState("");
  const found = useData((signal) => services(namespace, seconds, signal), [namespace, seconds]);
  const findings = useData((signal) => get("/tulle/v1/findings", {}, signal), [], (state) => state?.revision);
  const proxies = useData((signal) => get("/tulle/v1/proxies", {}, signal), []);
  const rows = (found.data?.rows ?? []).filter((row) => row.id.includes(filter)).sort((one, other) => RANK[one.health] - RANK[other.health] || (one.id < other.id ? -1 : 1));
  return html`<div><h1>Overview</h1>
    <${Summary} rows=${found.data?.rows ?? []} findings=${findings.data?.findings} proxies=${proxies.data?.proxies} />
    <div class="beside"><${Panel} title="Services" more=${html`<${Filter} value=${filter} onInput=${setFilter} label="Filter services" />`}>
      <${Wait} of=${found}><${Table} caption="Services" columns=${COLUMNS} rows=${rows} first=${null} id=${(row) => row.id} empty="No service is known here." />
      ${found.data?.begins > Date.now() / 1000 - seconds + 30 ? html`<p class="faint">Calls are known since ${ago(found.data.begins)}: the control plane was started then.</p>` : null}
      ${found.data?.dropped ? html`<p class="degraded">${found.data.dropped} calls are in no figure: there were more kinds of call than there is room for.</p>` : null}<//>
      <${Command} line=${`tulle stat ${namespace ? `-n ${namespace}` : "-A"} -t ${seconds}s`} /><//>
    <div class="column"><${Panel} title="Changed lately"><${Changes} query=${{ namespace, limit: 15 }} /><${Command} line=${`tulle history${namespace ? ` -n ${namespace}` : ""}`} /><//>
      <${Worst} findings=${findings} namespace=${namespace} /></div></div></div>`;
}

function Summary({ rows, findings, proxies }) {
  const counted = rows.filter((row) => row.figures);
  const sum = (of) => counted.reduce((total, row) => total + of(row.figures), 0);
  const calls = sum((one) => one.calls), failing = rows.filter((row) => row.health === "failing").length, degraded = rows.filter((row) => row.health === "degraded").length;
  const errors = findings?.filter((one) => one.severity === "error").length;
  const newest = Math.max(0, ...(proxies ?? []).map((one) => one.synced));
  const behind = (proxies ?? []).filter((one) => one.types.some((type) => Object.keys(type.refused ?? {}).length)).length;
  return html`<div class="tiles summary">
    <${Tile} title="Services" value=${rows.length} of=${failing ? "failing" : degraded ? "degraded" : ""} note=${failing || degraded ? [failing && `${failing} failing`, degraded && `${degraded} degraded`].filter(Boolean).join(", ") : "all well"} />
    <${Tile} title="Requests a second" value=${rate(sum((one) => one.rate))} />
    <${Tile} title="Success" value=${percent(calls ? 1 - sum((one) => one.failures) / calls : null, 2)} of=${failing ? "failing" : ""} />
    <${Tile} title="Mutual TLS" value=${percent(calls ? sum((one) => (one.secured ?? 0) * one.calls) / calls : null, 0)} />
    <${Tile} title="Proxies" value=${proxies?.length ?? "–"} of=${behind ? "failing" : ""} note=${behind ? `${plural(behind, "proxy").replace("proxys", "proxies")} refused something` : newest ? `revision ${newest}` : ""} />
    <${Tile} title="Findings" value=${findings?.length ?? "–"} of=${errors ? "failing" : ""} note=${errors ? plural(errors, "error") : ""} /></div>`;
}

function Worst({ findings, namespace }) {
  const shown = (findings.data?.findings ?? []).filter((one) => !namespace || one.ref?.namespace === namespace).sort((one, other) => SEVERE[one.severity] - SEVERE[other.severity]);
  if (!shown.length && !findings.error) return null;
  return html`<${Panel} title="Findings"><${Wait} of=${findings}><ul class="findings">${shown.slice(0, 8).map((one) => html`<li><${Health} of=${one.severity} word=${false} /> <a href=${link(["object", one.ref?.kind ?? "", one.ref?.namespace || "-", one.ref?.name ?? ""])}>${one.ref?.kind} ${one.ref?.name}</a> ${one.message} <span class="faint">${one.code}</span></li>`)}</ul><//><${Command} line="tulle analyze" /><//>`;
}
