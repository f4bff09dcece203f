// Every workload: what it is, whether it takes calls, and how those go.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { Command, figureColumns, Filter, Health, Panel, Table, Wait } from "../parts.js";

const COLUMNS = [
  { name: "health", label: "Health", by: (row) => row.health, show: (row) => html`<${Health} of=${row.health} />` },
  { name: "name", label: "Workload", by: (row) => row.id, show: (row) => html`<a href=${link(["workload", ...row.id.split("/")])}>${row.id}</a>` },
  { name: "app", label: "App", by: (row) => row.app, show: (row) => `${row.app} ${row.version}` },
  { name: "node", label: "Node", by: (row) => row.node, show: (row) => row.node || "–" },
  { name: "proxy", label: "Proxy", by: (row) => row.proxy, show: (row) => (row.gateway ? "gateway" : row.proxy ? "sidecar" : "none") },
  ...figureColumns(),
];

export default function Workloads({ namespace, seconds }) {
  const [filter, setFilter] = useState("");
  const found = useData(async (signal) => {
    const [there, counted] = await Promise.all([
      get("/tulle/v1/telemetry/inventory", { namespace }, signal),
      get("/tulle/v1/telemetry/figures", { by: "workload", seconds, namespace, points: 30 }, signal),
    ]);
    const figures = new Map(counted.rows.map((row) => [row.key.workload, row]));
    return there.workloads.map((one) => ({ ...one, figures: figures.get(one.id)?.figures, series: figures.get(one.id)?.series, health: one.ready ? figures.get(one.id)?.figures.health ?? "idle" : "failing" }));
  }, [namespace, seconds]);
  const rows = (found.data ?? []).filter((row) => row.id.includes(filter));
  return html`<div><h1>Workloads</h1><${Panel} title="Workloads" more=${html`<${Filter} value=${filter} onInput=${setFilter} />`}><${Wait} of=${found}><${Table} caption="Workloads" columns=${COLUMNS} rows=${rows} first=${["name", false]} id=${(row) => row.id} /><//>
    <${Command} line=${`tulle top --by workload ${namespace ? `-n ${namespace}` : "-A"}`} /><//></div>`;
}
