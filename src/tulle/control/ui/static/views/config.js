// Every object that configures the mesh: what became of it, and what is wrong with it.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { ago } from "../format.js";
import { kinds, path, status } from "../kinds.js";
import { Command, Filter, Health, Panel, Table, Wait } from "../parts.js";
import { Changes } from "../changes.js";

const COLUMNS = [
  { name: "kind", label: "Kind", by: (row) => row.kind.kind, show: (row) => html`<span title=${row.kind.group}>${row.kind.kind}</span>` },
  { name: "name", label: "Name", by: (row) => row.name, show: (row) => html`<a href=${link(["object", row.kind.kind, row.namespace || "-", row.name], { g: row.kind.group })}>${row.namespace ? `${row.namespace}/` : ""}${row.name}</a>` },
  { name: "status", label: "Status", by: (row) => row.status.word, show: (row) => (row.status.word ? html`<span title=${row.status.why}><${Health} of=${row.status.of} word=${false} /> ${row.status.word}</span>` : html`<span class="faint">–</span>`) },
  { name: "findings", label: "Findings", number: true, by: (row) => row.findings.length, show: (row) => (row.findings.length ? html`<span class=${row.findings.some((one) => one.severity === "error") ? "error" : "warning"} title=${row.findings.map((one) => one.message).join("\n")}>${row.findings.length}</span>` : "") },
  { name: "age", label: "Created", number: true, by: (row) => row.created, show: (row) => ago(row.created) },
];

async function objects(namespace, signal) {
  const shown = (await kinds()).filter((one) => one.shown && (one.namespaced || !namespace));
  const said = get("/tulle/v1/findings", {}, signal).catch(() => ({ findings: [] }));
  const refused = [];
  const lists = await Promise.all(shown.map(async (kind) => {
    try { return (await get(path(kind, namespace), {}, signal)).items.map((one) => row(kind, one)); } catch (error) {
      if (error.status !== 403) throw error;
      refused.push(kind.kind);
      return [];
    }
  }));
  const found = lists.flat();
  for (const one of (await said).findings) found.find((each) => each.kind.kind === one.ref?.kind && each.kind.group === (one.ref.group ?? "") && each.namespace === (one.ref.namespace ?? "") && each.name === one.ref.name)?.findings.push(one);
  return { rows: found, refused };
}

function row(kind, object) {
  const { name, namespace = "", creationTimestamp } = object.metadata;
  return { kind, name, namespace, created: Date.parse(creationTimestamp) / 1000, status: status(object), findings: [] };
}

export default function Config({ namespace }) {
  const [filter, setFilter] = useState(""), [kind, setKind] = useState(""), [wrong, setWrong] = useState(false);
  const found = useData((signal) => objects(namespace, signal), [namespace], (state) => state?.revision);
  const all = found.data?.rows ?? [], names = [...new Set(all.map((one) => one.kind.kind))].sort();
  const rows = all.filter((one) => `${one.namespace}/${one.name}`.includes(filter) && (!kind || one.kind.kind === kind) && (!wrong || one.findings.length || one.status.of === "failing"));
  const controls = html`<div class="actions"><${Filter} value=${filter} onInput=${setFilter} label="Filter by name" />
    <label><span class="unseen">Kind</span><select value=${kind} onChange=${(event) => setKind(event.target.value)}><option value="">all kinds</option>${names.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
    <label><input type="checkbox" checked=${wrong} onChange=${() => setWrong(!wrong)} /> only what is wrong</label><a href=${link(["object", "new", "-", "-"])}>New object</a></div>`;
  return html`<div><h1>Configuration</h1><div class="beside"><${Panel} title="Objects" more=${controls}><${Wait} of=${found}><${Table} caption="Objects" columns=${COLUMNS} rows=${rows} first=${["kind", false]} id=${(one) => `${one.kind.group} ${one.kind.kind} ${one.namespace} ${one.name}`} empty="No object is like that." />
      ${found.data?.refused.length ? html`<p class="faint">You may not see: ${found.data.refused.join(", ")}.</p>` : null}<//><${Command} line=${`tulle get ${kind || "all"} ${namespace ? `-n ${namespace}` : "-A"}`} /><//>
    <${Panel} title="Changed lately"><${Changes} query=${{ namespace, limit: 20 }} /><${Command} line="tulle history" /><//></div></div>`;
}
