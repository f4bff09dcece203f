// Beside the graph: what is known of the node or the link that was chosen; and all links as a table.

import { html } from "./vendor/preact.js";
import { get } from "./api.js";
import { link, useData } from "./hooks.js";
import { percent, reasons } from "./format.js";
import { figureColumns, Health, Spark, Table, Tiles } from "./parts.js";

export function Side({ of, graph, choose, seconds, namespace, level, until }) {
  // With curves, which the drawing does without.
  const curves = useData((signal) => get("/tulle/v1/telemetry/graph", { level, seconds, namespace, idle: false, points: 30, until: until || "" }, signal), [level, seconds, namespace], undefined, [until]);
  const node = graph.nodes.find((one) => one.id === of.node), one = graph.links.find((each) => each.source === of.source && each.target === of.target && each.protocol === of.protocol);
  const close = html`<button type="button" class="close" aria-label="Close" onClick=${() => choose(null)}>✕</button>`;
  if (!node && !one) return html`<aside class="side panel" aria-label="Details">${close}<p class="empty">It is not there any more.</p></aside>`;
  return html`<aside class="side panel" aria-label="Details">${close}${node ? html`<${NodeSide} node=${node} graph=${graph} choose=${choose} level=${level} series=${curves.data?.nodes.find((each) => each.id === node.id)?.series} />` : html`<${LinkSide} one=${one} choose=${choose} series=${curves.data?.links.find((each) => each.source === one.source && each.target === one.target && each.protocol === one.protocol)?.series} />`}</aside>`;
}

function NodeSide({ node, graph, choose, level, series }) {
  const service = `${node.namespace}/${node.name}`;
  const into = graph.links.filter((one) => one.target === node.id), out = graph.links.filter((one) => one.source === node.id);
  const workload = level === "workload" && node.id === service;
  return html`<h2>${node.name} ${node.version ?? ""}</h2><p><${Health} of=${node.health ?? "idle"} /> in ${node.namespace || "no namespace"}${node.workloads ? `, ${node.ready ?? 0} of ${node.workloads} ready` : ""}</p>
    <${Tiles} figures=${node.figures} />${node.figures.failures ? html`<p class="failing">${reasons(node.figures)}</p>` : null}<${Curve} series=${series} />
    ${node.namespace ? html`<p>${workload ? html`<a href=${link(["workload", node.namespace, node.name])}>Workload ${node.name}</a>` : html`<a href=${link(["service", node.namespace, node.name])}>Service ${service}</a>`}</p>` : null}
    <${Ends} title="Called by" links=${into} end="source" choose=${choose} /><${Ends} title="Calls" links=${out} end="target" choose=${choose} />`;
}

function Ends({ title, links, end, choose }) {
  if (!links.length) return null;
  return html`<h3>${title}</h3><ul class="ends">${links.map((one) => html`<li><button type="button" onClick=${() => choose({ node: one[end] })}>${one[end]}</button> <span class=${one.figures.health}>${percent(one.figures.success)}</span> <span class="faint">${percent(one.share ?? 1, 0)} of its calls</span></li>`)}</ul>`;
}

function Curve({ series }) {
  return series?.length ? html`<h3>Requests a second</h3><${Spark} values=${series} width=${280} height=${56} />` : null;
}

function LinkSide({ one, choose, series }) {
  return html`<h2>${one.source} → ${one.target}</h2><p><${Health} of=${one.figures.health} /> ${one.protocol}, ${percent(one.share ?? 1, 0)} of what is sent to ${(one.services ?? []).join(", ")}</p><${Tiles} figures=${one.figures} />${one.figures.failures ? html`<p class="failing">${reasons(one.figures)}</p>` : null}<${Curve} series=${series} />
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
