// What an Envoy runs with, as `tulle proxy config` has it. Asked for by a person: a dump may be large.

import { html, useState } from "./vendor/preact.js";
import { follow } from "./api.js";
import { plural, shell } from "./format.js";
import { Command, Filter, Panel, Trouble } from "./parts.js";

// As Envoy calls the parts of its dump, and `tulle proxy config`.
const PARTS = [["Listeners", "listener"], ["Routes", "route"], ["Clusters", "cluster"], ["Endpoints", "endpoint"], ["Secrets", "secret"], ["Ecds", "all"], ["Bootstrap", "bootstrap"]];
const WORDS = { Ecds: "Filters" };
const MOST = 200; // resources that are shown at once

// Everything with a name in a part of the dump: { name, state, body }.
export function resources(config) {
  if (config.bootstrap) return [{ name: "bootstrap", state: "", body: config.bootstrap }];
  return Object.entries(config).flatMap(([list, entries]) => (Array.isArray(entries) ? entries : []).map((entry) => {
    const inner = entry.active_state ?? entry.warming_state ?? entry.draining_state ?? entry;
    const body = Object.values(inner).find((value) => value && typeof value === "object" && !Array.isArray(value)) ?? inner;
    const state = list.startsWith("static") ? "static" : entry.error_state ? "refused" : list.includes("warming") || entry.warming_state ? "warming" : "";
    return { name: String(entry.name ?? body.name ?? body.cluster_name ?? "–"), state, body };
  })).sort((one, other) => (one.name < other.name ? -1 : 1));
}

export function Envoy({ id, children }) {
  const [dump, setDump] = useState(null), [error, setError] = useState(null), [asking, setAsking] = useState(false);
  const [part, setPart] = useState("Listeners"), [filter, setFilter] = useState("");
  const load = async () => {
    const pieces = [];
    setAsking(true); setError(null);
    try {
      await follow(`/tulle/v1/config/${id}`, {}, undefined, (told) => pieces.push(...(told.lines ?? [])));
      const found = JSON.parse(pieces.join(""));
      setDump(Object.fromEntries((found.configs ?? []).map((one) => [/(\w+)ConfigDump$/.exec(one["@type"])?.[1] ?? "", resources(one)])));
    } catch (problem) { setError(problem); }
    setAsking(false);
  };
  const rows = (dump?.[part] ?? []).filter((one) => one.name.includes(filter));
  const word = PARTS.find(([one]) => one === part)[1];
  return html`<${Panel} title="Envoy's configuration" more=${html`<button type="button" disabled=${asking} onClick=${load}>${asking ? "Asking the node…" : dump ? "Ask again" : "Show what it runs with"}</button>`}>${children}
    <${Trouble} error=${error} title="It could not be read" />
    ${dump ? html`<div class="tabs" role="tablist" aria-label="Parts of the configuration">${PARTS.filter(([one]) => dump[one]).map(([one]) => html`<button type="button" role="tab" key=${one} aria-selected=${one === part} onClick=${() => setPart(one)}>${WORDS[one] ?? one} <span class="faint">${dump[one].length}</span></button>`)}</div>
      <${Filter} value=${filter} onInput=${setFilter} label="Filter by name" />
      <div class="resources" role="tabpanel" aria-label=${WORDS[part] ?? part}>${rows.slice(0, MOST).map((one) => html`<${Resource} key=${part + one.name + one.state} of=${one} />`)}${rows.length ? null : html`<p class="empty">None is like that.</p>`}${rows.length > MOST ? html`<p class="faint">${plural(rows.length - MOST, "more one")}: filter by name.</p>` : null}</div>` : null}
    <${Command} line=${`tulle proxy config ${word} ${shell(id)}`} /><//>`;
}

// The text is made when somebody opens it.
function Resource({ of }) {
  const [open, set] = useState(false);
  return html`<details onToggle=${(event) => set(event.target.open)}><summary><code>${of.name}</code> ${of.state ? html`<span class="badge">${of.state}</span>` : null}</summary>${open ? html`<pre tabindex="0" aria-label=${of.name}>${JSON.stringify(of.body, null, 2)}</pre>` : null}</details>`;
}
