// One service: how its calls go, who answers them, by which rules they get there, and who says so.

import { html } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { percent, rate, shell } from "../format.js";
import { Command, figureColumns, Health, Panel, Table, Tiles, Wait } from "../parts.js";
import { Charts } from "../charts.js";
import { health } from "./overview.js";
import { Named, Share } from "../named.js";
import { Recent } from "../recent.js";

const IDLE = { health: "idle", calls: 0, failures: 0, rate: 0, success: null, p50: null, p95: null, p99: null, secured: null };

export default function Service({ path, seconds }) {
  const id = path.join("/"), [namespace, name] = path.length > 1 ? path : ["", path[0]];
  const figures = (by, more = {}) => (signal) => get("/tulle/v1/telemetry/figures", { by, seconds, ...more }, signal);
  const found = useData(async (signal) => {
    const [there, services, edges, routes] = await Promise.all([get("/tulle/v1/telemetry/inventory", {}, signal), figures("service")(signal), figures("edge", { points: 30 })(signal), figures("route", { points: 30 })(signal)]);
    const service = there.services.find((one) => one.id === id), row = services.rows.find((one) => one.key.service === id);
    return { service, figures: row?.figures ?? IDLE, workloads: there.workloads, edges: edges.rows.filter((one) => one.key.service === id), routes: routes.rows.filter((one) => one.key.service === id) };
  }, [id, seconds]);
  const said = useData((signal) => get("/tulle/v1/describe/host", { host: namespace ? `${name}.${namespace}.svc.cluster.local` : name, namespace: namespace || "default" }, signal), [id], (state) => state?.revision);
  const data = found.data, state = data ? health(data) : null;
  return html`<div><h1>${id} ${state ? html`<${Health} of=${state.health} />` : null}</h1>${state?.why ? html`<p class=${state.health}>${state.why}</p>` : null}
    <${Wait} of=${found}>${data ? html`<${Tiles} figures=${data.figures} />
      <${Panel} title="Calls over time"><${Charts} about=${{ level: "service", node: namespace ? id : `host:${id}` }} seconds=${seconds} /><${Command} line=${`tulle stat ${shell(id)} -t ${seconds}s`} /><//>
      <${Endpoints} data=${data} /><${Edges} title="Called by" end="source" rows=${data.edges} id=${id} seconds=${seconds} />` : null}<//>
    <${Recent} title="Recent calls" query=${{ destination: id }} flag="--to" />
    <p><a href=${link(["traces"], { service: id })}>Traces in which it took part</a></p>
    <${Wait} of=${said}>${said.data ? html`<${Routes} said=${said.data} routes=${data?.routes ?? []} id=${id} name=${name} namespace=${namespace} />` : null}<//></div>`;
}

// Who answers, and what part of the calls: the split as it really is.
function Endpoints({ data }) {
  const total = data.edges.reduce((sum, row) => sum + row.figures.calls, 0);
  const rows = (data.service?.workloads ?? []).map((id) => ({ id, workload: data.workloads.find((one) => one.id === id), edges: data.edges.filter((row) => row.key.destination === id) }));
  for (const row of rows) {
    row.calls = row.edges.reduce((sum, one) => sum + one.figures.calls, 0);
    row.failures = row.edges.reduce((sum, one) => sum + one.figures.failures, 0);
    row.rate = row.edges.reduce((sum, one) => sum + one.figures.rate, 0);
  }
  const columns = [
    { name: "ready", label: "Ready", by: (row) => row.workload?.ready, show: (row) => html`<${Health} of=${row.workload?.ready === false ? "failing" : "healthy"} word=${false} /> ${row.workload?.ready === false ? "not ready" : "ready"}` },
    { name: "id", label: "Workload", by: (row) => row.id, show: (row) => html`<a href=${link(["workload", ...row.id.split("/")])}>${row.id}</a>` },
    { name: "version", label: "Version", by: (row) => row.workload?.version, show: (row) => row.workload?.version || "–" },
    { name: "address", label: "Address", show: (row) => row.workload?.address ?? "–" },
    { name: "node", label: "Node", show: (row) => row.workload?.node || "–" },
    { name: "share", label: "Share of the calls", by: (row) => row.calls, show: (row) => html`<${Share} of=${total ? row.calls / total : 0} />` },
    { name: "rate", label: "Rate", number: true, by: (row) => row.rate, show: (row) => rate(row.rate) },
    { name: "success", label: "Success", number: true, by: (row) => (row.calls ? 1 - row.failures / row.calls : null), show: (row) => html`<span class=${row.failures ? "failing" : ""}>${percent(row.calls ? 1 - row.failures / row.calls : null, 2)}</span>` },
  ];
  return html`<${Panel} title="Endpoints and versions"><${Table} caption="Endpoints" columns=${columns} rows=${rows} id=${(row) => row.id} first=${["id", false]} empty="No workload is selected by this service." />
    ${data.service ? html`<p class="faint">${data.service.hostname} ${data.service.address}, ports ${data.service.ports.map((port) => `${port.number} ${port.name} (${port.protocol})`).join(", ")}</p>` : null}<//>`;
}

export function Edges({ title, end, rows, id, seconds }) {
  const columns = [
    { name: "end", label: end === "source" ? "From" : "To", by: (row) => row.key[end], show: (row) => (row.key[end] === "unknown" ? "unknown" : html`<a href=${link(["workload", ...row.key[end].split("/")])}>${row.key[end]}</a>`) },
    { name: "other", label: end === "source" ? "To" : "Service", by: (row) => (end === "source" ? row.key.destination : row.key.service), show: (row) => (end === "source" ? row.key.destination : row.key.service) },
    { name: "protocol", label: "Protocol", by: (row) => row.key.protocol, show: (row) => row.key.protocol },
    ...figureColumns(),
  ];
  return html`<${Panel} title=${title}><${Table} caption=${title} columns=${columns} rows=${rows} first=${["rate", true]} empty="No calls were counted in this time." /><${Command} line=${`tulle edges -n ${shell(id.split("/")[0])} -t ${seconds}s`} /><//>`;
}

function Routes({ said, routes, id, name, namespace }) {
  const figures = new Map(routes.map((row) => [row.key.route, row]));
  const columns = [
    { name: "match", label: "Requests", show: (row) => row.match },
    { name: "action", label: "go to", show: (row) => row.action },
    { name: "object", label: "because of", show: (row) => (row.object ? html`<${Named} text=${row.object} /> <span class="faint">${row.path ?? ""}</span>` : "–") },
    ...figureColumns((row) => figures.get(row.name)?.figures, false),
  ];
  return html`<${Panel} title="Routes">${said.routes.map((one) => html`<h3>Port ${one.port}, for callers in ${one.callers.join(", ")}</h3><${Table} caption=${`Routes at port ${one.port}`} columns=${columns} rows=${one.rules} id=${(row) => row.name + row.match} />`)}
      ${said.routes.length ? null : html`<p class="empty">No routes.</p>`}<${Command} line=${`tulle describe ${shell(name)}${namespace ? ` -n ${shell(namespace)}` : ""}`} /><//>
    <${Panel} title="Objects that speak of it"><ul class="plain">${said.objects.map((one) => html`<li><${Named} text=${one.object} /> <span class="faint">${one.place ? `${one.place}. ` : ""}${one.effect}</span></li>`)}</ul>
      ${said.problems.map((text) => html`<p class="caution">${text}</p>`)}<//>`;
}
