// Beside the graph: what is known of the node or the link that was chosen; and all links as a table.

import { html } from "./vendor/preact.js";
import { get } from "./api.js";
import { link, useData } from "./hooks.js";
import { percent, reasons } from "./format.js";
import { figureColumns, Health, Spark, Table, Tiles } from "./parts.js";

export function Side({ of, graph, choose, seconds, namespace, level }) {
  const node = graph.nodes.find((one) => one.id === of.node), one = graph.links.find((each) => each.source === of.source && each.target === of.target && each.protocol === of.protocol);
  const close = html`<button type="button" class="close" aria-label="Close" onClick=${() => choose(null)}>✕</button>`;
  if (!node && !one) return html`<aside class="side panel" aria-label="Details">${close}<p class="empty">It is not there any more.</p></aside>`;
  return html`<aside class="side panel" aria-label="Details">${close}${node ? html`<${NodeSide} node=${node} graph=${graph} choose=${choose} seconds=${seconds} namespace=${namespace} level=${level} />` : html`<${LinkSide} one=${one} choose=${choose} />`}</aside>`;
}

function NodeSide({ node, graph, choose, seconds, namespace, level }) {
  const service = `${node.namespace}/${node.name}`;
  const series = useData((signal) => get("/tulle/v1/telemetry/figures", { by: "service", seconds, namespace, points: 30 }, signal), [seconds, namespace]);
  const row = series.data?.rows.find((one) => one.key.service === service);
  const into = graph.links.filter((one) => one.target === node.id), out = graph.links.filter((one) => one.source === node.id);
  const workload = level === "workload" && node.id === service;
  return html`<h2>${node.name} ${node.version ?? ""}</h2><p><${Health} of=${node.health ?? "idle"} /> in ${node.namespace || "no namespace"}${node.workloads ? `, ${node.ready ?? 0} of ${node.workloads} ready` : ""}</p>
    <${Tiles} figures=${node.figures} />${node.figures.failures ? html`<p class="failing">${reasons(node.figures)}</p>` : null}${row ? html`<${Spark} values=${row.series} width=${280} height=${56} />` : null}
    ${node.namespace ? html`<p>${workload ? html`<a href=${link(["workload", node.namespace, node.name])}>Workload ${node.name}</a>` : html`<a href=${link(["service", node.namespace, node.name])}>Service ${service}</a>`}</p>` : null}
    <${Ends} title="Called by" links=${into} end="source" choose=${choose} /><${Ends} title="Calls" links=${out} end="target" choose=${choose} />`;
}

function Ends({ title, links, end, choose }) {
  if (!links.length) return null;
  return html`<h3>${title}</h3><ul class="ends">${links.map((one) => html`<li><button type="button" onClick=${() => choose({ node: one[end] })}>${one[end]}</button> <span class=${one.figures.health}>${percent(one.figures.success)}</span> <span class="faint">${percent(one.share ?? 1, 0)} of its calls</span></li>`)}</ul>`;
}

function LinkSide({ one, choose }) {
  return html`<h2>${one.source} → ${one.target}</h2><p><${Health} of=${one.figures.health} /> ${one.protocol}, ${percent(one.share ?? 1, 0)} of what is sent to ${(one.services ?? []).join(", ")}</p><${Tiles} figures=${one.figures} />${one.figures.failures ? html`<p class="failing">${reasons(one.figures)}</p>` : null}
    <ul class="ends"><li><button type="button" onClick=${() => choose({ node: one.source })}>${one.source}</button></li><li><button type="button" onClick=${() => choose({ node: one.target })}>${one.target}</button></li></ul>`;
}

export function LinkTable({ links }) {
  const columns = [
    { name: "source", label: "From", by: (one) => one.source, show: (one) => one.source },
    { name: "target", label: "To", by: (one) => one.target, show: (one) => one.target },
    { name: "protocol", label: "Protocol", by: (one) => one.protocol, show: (one) => one.protocol },
    { name: "share", label: "Share", number: true, by: (one) => one.share ?? 1, show: (one) => percent(one.share ?? 1, 0) },
    ...figureColumns((one) => one.figures, false),
  ];
  return html`<${Table} caption="Who calls whom" columns=${columns} rows=${links} id=${(one) => `${one.source} ${one.target} ${one.protocol}`} empty="No calls were counted in this time." />`;
}
