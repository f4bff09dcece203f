// One object: as it is, what is wrong with it, how to change it, and how it was.

import { html, useState } from "../vendor/preact.js";
import { ask, get } from "../api.js";
import { link, useData } from "../hooks.js";
import { shell } from "../format.js";
import { kinds, path, status } from "../kinds.js";
import { Command, Health, Panel, Wait } from "../parts.js";
import { Editor } from "../editor.js";
import { Past } from "../past.js";

// What nobody edits, and few want to read: the owners of fields, and the status.
const MANAGED = /^ {2}managedFields:/, STATUS = /^status:/;
const TABS = [["view", "YAML"], ["edit", "Edit"], ["past", "History"]];
const START = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: \n  namespace: default\nspec:\n  hosts: []\n";

// The object in its kind; two groups may have a kind of one name.
async function load(name, namespace, object, group, signal) {
  const candidates = (await kinds()).filter((one) => one.kind === name && (group === undefined || one.group === group));
  if (!candidates.length) throw { status: 404, message: `no kind ${name} is served` };
  for (const [at, kind] of candidates.entries()) {
    try {
      const { text } = await ask("GET", path(kind, namespace, object), { accept: "application/yaml", signal });
      return { kind, text, object: await get(path(kind, namespace, object), {}, signal) };
    } catch (error) {
      if (error.status !== 404 || at === candidates.length - 1) throw error;
    }
  }
}

export default function ObjectPage({ path: [name, place, object], query }) {
  if (name === "new") return html`<div><h1>New object</h1><${Panel} title="YAML"><${Editor} text=${START} /><${Command} line="tulle apply -f FILE --dry-run" /><//></div>`;
  return html`<${One} name=${name} namespace=${place === "-" ? "" : place} object=${object} group=${query.g} />`;
}

function One({ name, namespace, object, group }) {
  const [tab, setTab] = useState("view");
  const found = useData((signal) => load(name, namespace, object, group, signal), [name, namespace, object, group], (state) => state?.revision);
  const findings = useData((signal) => get("/tulle/v1/findings", {}, signal), [], (state) => state?.revision);
  const data = found.data, state = data ? status(data.object) : null;
  const mine = (findings.data?.findings ?? []).filter((one) => one.ref?.kind === name && (one.ref.namespace ?? "") === namespace && one.ref.name === object && (!data || (one.ref.group ?? "") === data.kind.group));
  const resource = data ? (data.kind.group ? `${data.kind.plural}.${data.kind.group}` : data.kind.plural) : name.toLowerCase();
  const where = `${shell(resource)} ${shell(object)}${namespace ? ` -n ${shell(namespace)}` : ""}`;
  const gone = found.error?.status === 404 && !data;
  return html`<div><h1>${name} ${namespace ? `${namespace}/` : ""}${object} ${state?.word ? html`<${Health} of=${state.of} word=${false} /> <small class="faint">${state.word}</small>` : null}</h1>${state?.why && state.of !== "healthy" ? html`<p class="caution">${state.why}</p>` : null}
    ${mine.map((one) => html`<p class=${one.severity === "error" ? "trouble" : "caution"}><strong>${one.path}</strong> ${one.message} <span class="faint">${one.code}</span>${one.hint ? html`<br />${one.hint}` : null}</p>`)}
    ${gone ? html`<p class="caution">It is not there; its history may say why.</p>` : null}
    <div class="tabs" role="tablist">${TABS.filter(([one]) => !gone || one === "past").map(([one, label]) => html`<button key=${one} type="button" role="tab" id=${`tab-${one}`} aria-selected=${(gone ? "past" : tab) === one ? "true" : "false"} aria-controls="shown" onClick=${() => setTab(one)}>${label}</button>`)}</div>
    <div id="shown" role="tabpanel" aria-labelledby=${`tab-${gone ? "past" : tab}`}>${gone || tab === "past" ? html`<${Past} resource=${data ? resourceName(data.kind) : ""} kind=${name} namespace=${namespace} name=${object} />`
      : html`<${Wait} of=${found}>${data && tab === "view" ? html`<${Panel} title="As it is"><pre tabindex="0">${without(data.text, MANAGED)}</pre><${Command} line=${`tulle get ${where} -o yaml`} /><//>` : null}
        ${data && tab === "edit" ? html`<${Panel} title="Change it"><${Editor} text=${without(data.text, MANAGED, STATUS)} at=${path(data.kind, namespace, object)} saved=${() => { setTab("view"); found.again(); }} /><${Command} line=${`kubectl edit ${where}`} /><//>` : null}<//>`}</div></div>`;
}

export function resourceName({ plural, group }) {
  return group ? `${plural}.${group}` : plural;
}

// A text of YAML without some of its fields: those whose first line is like one of `patterns`.
function without(text, ...patterns) {
  const found = [];
  let skipped = null;
  for (const line of text.split("\n")) {
    const indent = line.length - line.trimStart().length;
    if (skipped !== null && (indent > skipped || (indent === skipped && line.trimStart().startsWith("- ")))) continue;
    skipped = null;
    if (patterns.some((pattern) => pattern.test(line))) { skipped = indent; continue; }
    found.push(line);
  }
  return found.join("\n");
}
