// One workload: its calls in and out, its proxy and what that has, its certificate, and what stands before it.

import { html } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago, clock, cores, megabytes, plural, shell } from "../format.js";
import { Command, Health, Panel, Table, Tiles, Wait } from "../parts.js";
import { Charts } from "../charts.js";
import { Named } from "../named.js";
import { Recent } from "../recent.js";
import { Logs } from "../logs.js";
import { Envoy } from "../envoy.js";
import { Edges } from "./service.js";
import { syncOf, TYPES } from "./proxies.js";

const IDLE = { health: "idle", calls: 0, failures: 0, rate: 0, success: null, p50: null, p95: null, p99: null, secured: null };
const quiet = (promise) => promise.catch((error) => { if (error.name === "AbortError") throw error; return null; });

export default function Workload({ path, seconds }) {
  const id = path.join("/"), [namespace, name] = path;
  const found = useData(async (signal) => {
    const [there, workloads, edges, proxies, certificates, taken] = await Promise.all([
      get("/tulle/v1/telemetry/inventory", { namespace }, signal),
      get("/tulle/v1/telemetry/figures", { by: "workload", seconds }, signal),
      get("/tulle/v1/telemetry/figures", { by: "edge", seconds, points: 30, namespace }, signal),
      quiet(get("/tulle/v1/proxies", {}, signal)),
      quiet(get("/tulle/v1/certificates", {}, signal)),
      quiet(get("/tulle/v1/telemetry/proxies", { namespace }, signal)),
    ]);
    const row = workloads.rows.find((one) => one.key.workload === id);
    return { item: there.workloads.find((one) => one.id === id), figures: row?.figures ?? IDLE, into: edges.rows.filter((one) => one.key.destination === id), out: edges.rows.filter((one) => one.key.source === id), proxy: proxies?.proxies.find((one) => one.proxy === id), certificate: certificates?.certificates.find((one) => one.holder === id), use: taken?.proxies.find((one) => one.proxy === id) };
  }, [id, seconds]);
  const doors = useData((signal) => quiet(get("/tulle/v1/describe/door", { workload: id, port: 0, host: name }, signal)), [id], (state) => state?.revision);
  const data = found.data, item = data?.item;
  const state = !data ? null : item && !item.ready ? "failing" : data.figures.health;
  return html`<div><h1>${id} ${state ? html`<${Health} of=${state} />` : null}</h1><${Wait} of=${found}>${data ? html`
    ${item && !item.ready ? html`<p class="failing">It is not ready: callers are not sent to it.</p>` : null}
    <${Tiles} figures=${data.figures} /><${Panel} title="Calls that came in, over time"><${Charts} about=${{ level: "workload", node: id }} seconds=${seconds} /><${Command} line=${`tulle top --by workload -n ${shell(namespace)}`} /><//>
    <div class="halves"><${Panel} title="What it is">${item ? html`<dl class="facts"><dt>App</dt><dd>${item.app} ${item.version}</dd><dt>Identity</dt><dd>${item.identity}</dd><dt>Address</dt><dd>${item.address || "–"}</dd><dt>Node</dt><dd>${item.node || "–"}</dd>
        <dt>Proxy</dt><dd>${item.gateway ? "gateway" : item.proxy ? "sidecar" : "none"}${data.use ? `, Envoy ${data.use.version || "of some version"}: CPU ${cores(data.use.cores)}, memory ${megabytes(data.use.memory)}, ${plural(data.use.restarts ?? 0, "restart")}` : ""}</dd><dt>Services</dt><dd>${item.services.map((one) => html`<a class="badge" href=${link(["service", ...one.split("/")])}>${one}</a>`)}</dd>
        <dt>Labels</dt><dd>${Object.entries(item.labels).map(([key, value]) => html`<span class="badge">${key}=${value}</span>`)}</dd><dt>Object</dt><dd><${Named} text=${`WorkloadEntry ${id}`} /></dd></dl>` : html`<p class="empty">The mesh does not know it any more.</p>`}<//>
      <div><${Certificate} of=${data.certificate} /><${Policies} door=${doors.data} id=${id} /></div></div>
    <${Proxy} of=${data.proxy} id=${id} />
    <${Edges} title="Calls that came in" end="source" rows=${data.into} id=${id} seconds=${seconds} /><${Edges} title="Calls that it makes" end="destination" rows=${data.out} id=${id} seconds=${seconds} />
    <${Recent} title="Recent calls to it" query=${{ destination: id }} flag="--to" /><${Recent} title="Recent calls that it made" query=${{ source: id }} flag="--from" />
    ${item ? html`<p><a href=${link(["traces"], { service: `${namespace}/${item.app}` })}>Traces in which ${item.app} took part</a></p>` : null}
    ${item?.proxy || item?.gateway ? html`<${Logs} id=${id} />` : null}` : null}<//></div>`;
}

function Certificate({ of }) {
  return html`<${Panel} title="Certificate">${of ? html`<dl class="facts"><dt>Identity</dt><dd>${of.identity}</dd><dt>Serial</dt><dd><code>${of.serial}</code></dd><dt>Issued</dt><dd>${ago(of.issued)}</dd><dt>Ends</dt><dd class=${of.late ? "failing" : ""}>${clock(of.notAfter)}${of.late ? ", its renewal is late" : ""}</dd></dl>` : html`<p class="empty">None is known, or you may not see it.</p>`}<${Command} line="tulle certs" /><//>`;
}

function Proxy({ of, id }) {
  const columns = [
    { name: "type", label: "Type", show: (one) => TYPES[one.type_url.split(".").at(-1)] ?? one.type_url.split(".").at(-1) },
    { name: "resources", label: "Resources", number: true, show: (one) => one.resources },
    { name: "sent", label: "Sent", number: true, show: (one) => one.sent },
    { name: "acked", label: "Taken", number: true, show: (one) => one.acked },
    { name: "refused", label: "Refused", show: (one) => Object.entries(one.refused ?? {}).map(([name, why]) => html`<div class="failing">${name}: ${why}</div>`) },
  ];
  const state = of ? syncOf(of) : null;
  return html`<${Envoy} id=${id}>${of ? html`<p><${Health} of=${state.of} word=${false} /> ${state.word}, connected ${ago(of.connected)}, at revision ${of.synced || "–"}</p><${Table} caption="What it was sent" columns=${columns} rows=${of.types} id=${(one) => one.type_url} />` : html`<p class="empty">No proxy of this name is connected.</p>`}<//>`;
}

function Policies({ door, id }) {
  const row = door?.row, names = new Set();
  const gather = (value) => { if (Array.isArray(value)) value.forEach(gather); else if (value && typeof value === "object") { if (value.ref?.kind) names.add(`${value.ref.kind} ${value.ref.namespace ? `${value.ref.namespace}/` : ""}${value.ref.name}`); Object.values(value).forEach(gather); } };
  gather(row);
  return html`<${Panel} title="Policies">${door ? html`<dl class="facts"><dt>Mutual TLS</dt><dd>${door.mtls ?? "DISABLE"}</dd><dt>Port</dt><dd>${door.port}</dd><dt>Who may call</dt><dd>${names.size ? [...names].map((text) => html`<div><${Named} text=${text} /></div>`) : "everybody: no policy selects it"}</dd></dl>` : html`<p class="empty">It has no proxy that would ask.</p>`}<${Command} line=${`tulle authz check ${shell(id)}`} /><//>`;
}
