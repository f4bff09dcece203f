// What was changed, by whom and when: beside the overview, and of one object.

import { html } from "./vendor/preact.js";
import { get } from "./api.js";
import { link, useData } from "./hooks.js";
import { ago, clock } from "./format.js";
import { Wait } from "./parts.js";

export function Changes({ query }) {
  const found = useData((signal) => get("/tulle/v1/history", { ...query, limit: 10 * query.limit }, signal), [JSON.stringify(query)], (state) => state?.revision);
  if (found.error?.status === 403) return html`<p class="empty">You may not see the history.</p>`;
  // Workloads that come and go are not what somebody changed.
  const changes = (found.data?.changes ?? []).filter((one) => !/^system:node:/.test(one.author)).slice(0, query.limit);
  return html`<${Wait} of=${found}>${changes.length ? html`<ol class="changes">${changes.map((one) => html`<li key=${one.revision + one.resource + one.name}>
      <a href=${link(["object", one.kind, one.namespace || "-", one.name])}>${one.kind} ${one.namespace ? `${one.namespace}/` : ""}${one.name}</a>
      <span class="what">${what(one)}</span><span class="faint" title=${clock(one.time)}>${ago(one.time)} by ${one.author}</span></li>`)}</ol>` : html`<p class="empty">Nothing was changed.</p>`}<//>`;
}

export function what(change) {
  if (!change.before) return "created";
  return change.after ? (change.verb === "rollback" ? "rolled back" : "changed") : "deleted";
}
