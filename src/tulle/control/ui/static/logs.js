// The access log of a workload, as `tulle logs` shows it. Asked for by a person: it costs the node something.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { follow } from "./api.js";
import { shell } from "./format.js";
import { Command, Panel, Trouble } from "./parts.js";

const MOST = 500; // lines that are kept
const STATUSES = [["", "every status"], ["4xx,5xx", "4xx and 5xx"], ["5xx", "5xx"]];

export function Logs({ id }) {
  const [status, setStatus] = useState(""), [going, setGoing] = useState(false), [asked, ask] = useState(0);
  const [found, set] = useState({ lines: [], notes: [], error: null, state: "" });
  const end = useRef(null);
  useEffect(() => {
    if (!asked) return undefined;
    const controller = new AbortController();
    set({ lines: [], notes: [], error: null, state: "asking" });
    const tell = (told) => set((old) => ({ ...old, state: "", lines: [...old.lines, ...(told.lines ?? [])].slice(-MOST), notes: told.notes?.length ? told.notes : old.notes }));
    follow(`/tulle/v1/logs/${id}`, { tail: 200, follow: going ? "true" : "", status }, controller.signal, tell)
      .then(() => set((old) => ({ ...old, state: "" })), (error) => { if (!controller.signal.aborted) set((old) => ({ ...old, error, state: "" })); });
    return () => controller.abort();
  }, [asked, status, going, id]);
  useEffect(() => { if (going) end.current?.scrollTo(0, end.current.scrollHeight); }, [found.lines]);
  const more = html`<div class="actions"><label><span class="unseen">Status</span><select value=${status} onChange=${(event) => setStatus(event.target.value)}>${STATUSES.map(([one, word]) => html`<option key=${one} value=${one}>${word}</option>`)}</select></label>
    <label><input type="checkbox" checked=${going} onChange=${() => setGoing(!going)} /> go on with what comes</label><button type="button" onClick=${() => ask(asked + 1)}>${asked ? "Ask again" : "Show the last lines"}</button></div>`;
  return html`<${Panel} title="Logs" more=${more}>
    ${asked ? html`<div role="status">${found.error ? html`<${Trouble} error=${found.error} title="There are no lines" />` : found.lines.length ? html`<pre class="log" tabindex="0" role="log" aria-label="Access log" ref=${end}>${found.lines.join("\n")}</pre>` : html`<p class="empty">${found.state ? "Asking the node…" : "No line is like that."}</p>`}${found.notes.map((note) => html`<p class="caution">${note}</p>`)}</div>` : html`<p class="empty">Where a Telemetry turned access logs on, the node has their last lines.</p>`}
    <${Command} line=${`tulle logs ${shell(id)}${going ? " -f" : ""}${status ? ` --status ${status}` : ""}`} /><//>`;
}
