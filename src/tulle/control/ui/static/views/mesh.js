// The control planes themselves: who leads, what they count.

import { html } from "../vendor/preact.js";
import { ask, get } from "../api.js";
import { useData } from "../hooks.js";
import { ago } from "../format.js";
import { Command, Panel, Table, Tile, Wait } from "../parts.js";
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
    <${Panel} title="What the control plane counts"><${Wait} of=${metrics}><${Table} caption="Metrics" columns=${COLUMNS} rows=${metrics.data ?? []} id=${(one) => one.name + one.labels} first=${["name", false]} /><//><${Command} line="kubectl get --raw /metrics" /><//></div>`;
}

function parsed(text) {
  return text.split("\n").filter((line) => line && !line.startsWith("#") && !line.startsWith("tulle_certificate_")).map((line) => {
    const [, name, labels = "", value] = /^([\w:]+)(?:\{(.*)\})? (\S+)/.exec(line) ?? [null, line, "", ""];
    return { name, labels, value: Number(value) };
  });
}
