// Beside the graph: what is known of the node or the link that was chosen; and all links as a table.

import { html } from "./vendor/preact.js";
import { link } from "./hooks.js";
import { percent, reasons, shell } from "./format.js";
import { Command, figureColumns, Health, Table, Tiles } from "./parts.js";
import { Charts } from "./charts.js";

export function Side({ of, graph, choose, seconds, level, until }) {
  const node = graph.nodes.find((one) => one.id === of.node), one = graph.links.find((each) => each.source === of.source && each.target === of.target && each.protocol === of.protocol);
  const close = html`<button type="button" class="close" aria-label="Close" onClick=${() => choose(null)}>✕</button>`;
  if (!node && !one) return html`<aside class="side panel" aria-label="Details">${close}<p class="empty">It is not there now, or was not there then.</p></aside>`;
  const about = node ? { level, node: node.id } : { level, source: one.source, target: one.target, protocol: one.protocol };
  const curves = html`<${Charts} about=${about} seconds=${seconds} until=${until} />`;
  return html`<aside class="side panel" aria-label="Details">${close}${node ? html`<${NodeSide} node=${node} graph=${graph} choose=${choose} level=${level} seconds=${seconds}>${curves}<//>` : html`<${LinkSide} one=${one} choose=${choose} seconds=${seconds}>${curves}<//>`}</aside>`;
}

function NodeSide({ node, graph, choose, level, seconds, children }) {
  const service = `${node.namespace}/${node.name}`;
  const into = graph.links.filter((one) => one.target === node.id), out = graph.links.filter((one) => one.source === node.id);
  const workload = level === "workload" && node.id === service;
  return html`<h2>${node.name} ${node.version ?? ""}</h2><p><${Health} of=${node.health ?? "idle"} /> in ${node.namespace || "no namespace"}${node.workloads ? `, ${node.ready ?? 0} of ${node.workloads} ready` : ""}</p>
    <${Tiles} figures=${node.figures} />${node.figures.failures ? html`<p class="failing">${reasons(node.figures)}</p>` : null}${children}
    ${node.namespace ? html`<p>${workload ? html`<a href=${link(["workload", node.namespace, node.name])}>Workload ${node.name}</a>` : html`<a href=${link(["service", node.namespace, node.name])}>Service ${service}</a>`}</p>` : null}
    <${Ends} title="Called by" links=${into} end="source" choose=${choose} /><${Ends} title="Calls" links=${out} end="target" choose=${choose} />${node.namespace ? html`<${Command} line=${workload ? `tulle edges -n ${shell(node.namespace)} -t ${seconds}s` : `tulle stat ${shell(service)} -t ${seconds}s`} />` : null}`;
}

function Ends({ title, links, end, choose }) {
  if (!links.length) return null;
  return html`<h3>${title}</h3><ul class="ends">${links.map((one) => html`<li><button type="button" onClick=${() => choose({ node: one[end] })}>${one[end]}</button>
    <button type="button" class=${one.figures.health} aria-label="The calls from ${one.source} to ${one.target}" onClick=${() => choose(ends(one))}>${percent(one.figures.success)}</button> <span class="faint">${percent(one.share ?? 1, 0)} of its calls</span></li>`)}</ul>`;
}

const ends = ({ source, target, protocol }) => ({ source, target, protocol });

function LinkSide({ one, choose, seconds, children }) {
  const [namespace] = one.target.split("/");
  return html`<h2>${one.source} → ${one.target}</h2><p><${Health} of=${one.figures.health} /> ${one.protocol}, ${percent(one.share ?? 1, 0)} of what is sent to ${(one.services ?? []).join(", ")}</p><${Tiles} figures=${one.figures} />${one.figures.failures ? html`<p class="failing">${reasons(one.figures)}</p>` : null}${children}
    <ul class="ends"><li><button type="button" onClick=${() => choose({ node: one.source })}>${one.source}</button></li><li><button type="button" onClick=${() => choose({ node: one.target })}>${one.target}</button></li></ul>
    <${Command} line=${`tulle edges ${namespace && namespace !== one.target ? `-n ${shell(namespace)}` : "-A"} -t ${seconds}s`} />`;
}

// The links for those who cannot or would not use the drawing: each leads to what stands beside it.
export function LinkTable({ links, choose }) {
  const columns = [
    { name: "source", label: "From", by: (one) => one.source, show: (one) => html`<button type="button" class="link-of" aria-label="Details of the calls from ${one.source} to ${one.target}" onClick=${() => choose(ends(one))}>${one.source}</button>` },
    { name: "target", label: "To", by: (one) => one.target, show: (one) => one.target },
    { name: "protocol", label: "Protocol", by: (one) => one.protocol, show: (one) => one.protocol },
    { name: "share", label: "Share", number: true, by: (one) => one.share ?? 1, show: (one) => percent(one.share ?? 1, 0) },
    ...figureColumns((one) => one.figures, false),
  ];
  return html`<${Table} caption="Who calls whom" columns=${columns} rows=${links} id=${(one) => `${one.source} ${one.target} ${one.protocol}`} empty="No calls were counted in this time." />`;
}
