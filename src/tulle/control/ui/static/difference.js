// What a change does, as people read it.

import { html } from "./vendor/preact.js";
import { around, diff } from "./diff.js";

const SIGNS = { same: "  ", added: "+ ", removed: "- " };

export function Difference({ before, after, label = "What changes" }) {
  const lines = around(diff(before, after));
  if (!lines.length) return html`<p class="empty">Nothing changes.</p>`;
  return html`<pre class="diff" tabindex="0" role="region" aria-label=${label}>${lines.map((line) => (line ? html`<span class=${line[0]}>${SIGNS[line[0]]}${line[1]}</span>` : html`<span class="faint">…</span>`))}</pre>`;
}

// As YAML would have it, near enough to compare: keys sorted, what the server keeps for itself left out.
export function text(value, indent = "") {
  if (value === null || typeof value !== "object") return `${typeof value === "string" && (value === "" || /^[\d\s"'{[>|*&!%@`-]|: |#|^(true|false|null|yes|no|on|off)$/i.test(value)) ? JSON.stringify(value) : value}`;
  const entries = Array.isArray(value) ? value.map((one) => ["-", one]) : Object.keys(value).sort().map((key) => [`${key}:`, value[key]]);
  if (!entries.length) return Array.isArray(value) ? "[]" : "{}";
  return entries.map(([key, one]) => {
    if (one === null || typeof one !== "object" || !Object.keys(one).length) return `${indent}${key} ${text(one)}`;
    const inner = text(one, `${indent}  `);
    return key === "-" ? `${indent}- ${inner.trimStart()}` : `${indent}${key}\n${inner}`;
  }).join("\n");
}

export function plain(object) {
  if (!object) return "";
  const { status: _status, ...rest } = object;
  const { managedFields: _m, resourceVersion: _r, generation: _g, uid: _u, creationTimestamp: _c, ...metadata } = rest.metadata ?? {};
  return text({ ...rest, metadata });
}
