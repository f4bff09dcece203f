// Every proxy that is connected: whether it has what it was sent.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago, cores, megabytes } from "../format.js";
import { Command, Filter, Health, Panel, Table, Wait } from "../parts.js";

export const TYPES = { Cluster: "CDS clusters", Listener: "LDS listeners", ClusterLoadAssignment: "EDS endpoints", RouteConfiguration: "RDS routes", VirtualHost: "VHDS virtual hosts", TypedExtensionConfig: "ECDS filters", Secret: "SDS secrets", Name: "NDS names" };

export function syncOf(proxy) {
  const refused = proxy.types.flatMap((type) => Object.keys(type.refused ?? {}));
  if (refused.length) return { of: "failing", word: `refuses ${refused.length}` };
  if (proxy.held) return { of: "degraded", word: "waits for its workload" };
  return proxy.types.some((type) => type.sent > type.acked) ? { of: "degraded", word: "behind" } : { of: "healthy", word: "synced" };
}

const COLUMNS = [
  { name: "sync", label: "Sync", by: (one) => syncOf(one).of, show: (one) => html`<${Health} of=${syncOf(one).of} word=${false} /> ${syncOf(one).word}` },
  { name: "proxy", label: "Proxy", by: (one) => one.proxy, show: (one) => html`<a href=${link(["workload", ...one.proxy.split("/")])}>${one.proxy}</a>` },
  { name: "node", label: "Node", by: (one) => one.peer, show: (one) => one.peer.split("/").at(-1) },
  { name: "plane", label: "Control plane", by: (one) => one.controlPlane, show: (one) => one.controlPlane },
  { name: "connected", label: "Connected", by: (one) => one.connected, number: true, show: (one) => ago(one.connected) },
  { name: "synced", label: "Revision", by: (one) => one.synced, number: true, show: (one) => one.synced || "–" },
  { name: "version", label: "Envoy", by: (one) => one.use?.version ?? "", show: (one) => one.use?.version || "–" },
  { name: "cores", label: "CPU", number: true, by: (one) => one.use?.cores ?? -1, show: (one) => cores(one.use?.cores) },
  { name: "memory", label: "Memory", number: true, by: (one) => one.use?.memory ?? -1, show: (one) => megabytes(one.use?.memory) },
  { name: "restarts", label: "Restarts", number: true, by: (one) => one.use?.restarts ?? -1, show: (one) => (one.use ? html`<span class=${one.use.restarts ? "degraded" : ""}>${one.use.restarts ?? 0}</span>` : "–") },
  { name: "resources", label: "Resources", by: (one) => one.types.reduce((sum, type) => sum + type.resources, 0), number: true, show: (one) => one.types.reduce((sum, type) => sum + type.resources, 0) },
];

export default function Proxies({ namespace }) {
  const [filter, setFilter] = useState("");
  const found = useData(async (signal) => {
    const [there, taken] = await Promise.all([get("/tulle/v1/proxies", {}, signal), get("/tulle/v1/telemetry/proxies", { namespace }, signal)]);
    const uses = new Map(taken.proxies.map((one) => [one.proxy, one]));
    return { proxies: there.proxies.map((one) => ({ ...one, use: uses.get(one.proxy) })) };
  }, [namespace]);
  const rows = (found.data?.proxies ?? []).filter((one) => one.proxy.includes(filter) && (!namespace || one.proxy.startsWith(`${namespace}/`)));
  return html`<div><h1>Proxies</h1><${Panel} title="Proxies" more=${html`<${Filter} value=${filter} onInput=${setFilter} />`}><${Wait} of=${found}><${Table} caption="Proxies" columns=${COLUMNS} rows=${rows} first=${["proxy", false]} id=${(one) => one.proxy + one.connected} empty="No proxy is connected." /><//><${Command} line="tulle proxy status" /><//></div>`;
}
