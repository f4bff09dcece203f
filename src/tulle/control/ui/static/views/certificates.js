// What was signed, for whom and until when, and what signs.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago, clock, span } from "../format.js";
import { Command, Filter, Health, Panel, Table, Wait } from "../parts.js";

const soon = (one) => one.notAfter - Date.now() / 1000;
const state = (one) => (soon(one) < 0 ? "failing" : one.late ? "degraded" : "healthy");
const COLUMNS = [
  { name: "state", label: "State", by: (one) => soon(one), show: (one) => html`<${Health} of=${state(one)} word=${false} /> ${soon(one) < 0 ? "ended" : one.late ? "renewal is late" : "valid"}` },
  { name: "holder", label: "Holder", by: (one) => one.holder, show: (one) => (/^(node\/|spiffe:)/.test(one.holder) || !one.holder.includes("/") ? one.holder : html`<a href=${link(["workload", ...one.holder.split("/")])}>${one.holder}</a>`) },
  { name: "identity", label: "Identity", by: (one) => one.identity, show: (one) => html`<code>${one.identity}</code>` },
  { name: "issued", label: "Issued", number: true, by: (one) => one.issued, show: (one) => ago(one.issued) },
  { name: "ends", label: "Ends", number: true, by: (one) => one.notAfter, show: (one) => html`<span title=${clock(one.notAfter)}>${soon(one) < 0 ? "ended" : `in ${span(soon(one))}`}</span>` },
  { name: "serial", label: "Serial", show: (one) => html`<code title=${one.sha256}>${one.serial.slice(0, 16)}…</code>` },
];

export default function Certificates() {
  const [filter, setFilter] = useState("");
  const found = useData((signal) => get("/tulle/v1/certificates", {}, signal), [], (now) => now?.revision);
  const authority = useData((signal) => get("/tulle/v1/ca", {}, signal), [], (now) => now?.revision);
  const rows = (found.data?.certificates ?? []).filter((one) => `${one.holder} ${one.identity}`.includes(filter));
  return html`<div><h1>Certificates</h1><${Panel} title="Authority"><${Wait} of=${authority}><${Facts} of=${authority.data} /><//><${Command} line="tulle ca status" /><//>
    <${Panel} title="Certificates" more=${html`<${Filter} value=${filter} onInput=${setFilter} />`}><${Wait} of=${found}><${Table} caption="Certificates" columns=${COLUMNS} rows=${rows} first=${["state", false]} id=${(one) => one.holder + one.serial} /><//><${Command} line="tulle certs" /><//></div>`;
}

// Whatever it says, by its own names.
export function Facts({ of }) {
  if (!of || typeof of !== "object") return null;
  const shown = (value) => (value === null ? "–" : Array.isArray(value) ? value.join(", ") || "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const time = (name, value) => (typeof value === "number" && value > 1e9 && value < 1e10 ? clock(value) : shown(value));
  return html`<dl class="facts">${Object.entries(of).flatMap(([name, value]) => (Array.isArray(value) && value.some((one) => typeof one === "object") ? value.map((one, at) => [`${name} ${at + 1}`, one]) : [[name, value]])).map(([name, value]) => html`<dt>${name}</dt><dd>${value && typeof value === "object" && !Array.isArray(value) ? html`<${Facts} of=${value} />` : String(time(name, value)).startsWith("-----BEGIN") ? "PEM" : time(name, value)}</dd>`)}</dl>`;
}
