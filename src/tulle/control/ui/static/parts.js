// Pieces that views are made of. Everything that comes from the mesh is put in as text.

import { html, useState } from "./vendor/preact.js";
import { ms, percent, rate, reasons } from "./format.js";

const SIGNS = { healthy: "●", degraded: "▲", failing: "✖", idle: "○", error: "✖", warning: "▲", info: "●" };

// Colour is never the only sign.
export function Health({ of, word = true }) {
  return html`<span class="health ${of}"><span aria-hidden="true">${SIGNS[of] ?? "●"}</span>${word ? html`<span class="word"> ${of}</span>` : html`<span class="unseen">${of}</span>`}</span>`;
}

export function Trouble({ error, title = "This could not be shown" }) {
  if (!error) return null;
  return html`<div class="trouble" role="alert"><strong>${error.status === 403 ? "Not allowed" : title}</strong>
    <p>${error.message}</p>${error.causes?.length ? html`<ul>${error.causes.map((cause) => html`<li>${cause}</li>`)}</ul>` : null}</div>`;
}

// What a view needs before it can be drawn: a place holder, or why it is not there.
export function Wait({ of, children }) {
  if (of.data == null) return of.error ? html`<${Trouble} error=${of.error} />` : html`<p class="waiting" role="status">Loading…</p>`;
  return html`<div>${of.error ? html`<${Trouble} error=${of.error} />` : null}${children}</div>`;
}

// The same in a terminal.
export function Command({ line }) {
  const [copied, set] = useState(false);
  const copy = async () => {
    try { await navigator.clipboard.writeText(line); set(true); setTimeout(() => set(false), 1500); } catch { /* it can be selected */ }
  };
  return html`<div class="command"><span class="unseen">The same in a terminal:</span><code tabindex="0">${line}</code>
    <button type="button" onClick=${copy} aria-label="Copy the command">${copied ? "copied" : "copy"}</button></div>`;
}

// Values that are not known are null: those before anything was.
export function Spark({ values, width = 120, height = 28, wide = false, label = "Requests a second" }) {
  const known = values?.filter((value) => value !== null) ?? [];
  if (known.length < 2) return html`<span class="faint">–</span>`;
  const top = Math.max(...known, 1e-9);
  const step = width / Math.max(1, values.length - 1), start = width - (known.length - 1) * step;
  const points = known.map((value, at) => `${(start + at * step).toFixed(1)},${(height - 2 - (value / top) * (height - 4)).toFixed(1)}`);
  return html`<svg class="spark ${wide ? "wide" : ""}" viewBox="0 0 ${width} ${height}" width=${wide ? "100%" : width} height=${height} preserveAspectRatio=${wide ? "none" : "xMidYMid"} role="img"
      aria-label="${label}: now ${rate(known.at(-1))}, at most ${rate(top)}">
    <polygon points="${start},${height} ${points.join(" ")} ${width},${height}" /><polyline points=${points.join(" ")} /></svg>`;
}

export function Panel({ title, children, more = null, id = undefined }) {
  return html`<section class="panel" aria-label=${title} id=${id}><header><h2>${title}</h2>${more}</header>${children}</section>`;
}

export function Tile({ title, value, of = "", note = "" }) {
  return html`<div class="tile ${of}"><span class="name">${title}</span><span class="value ${String(value).length > 10 ? "long" : ""}">${value}</span>${note ? html`<span class="note">${note}</span>` : null}</div>`;
}

export function Tiles({ figures }) {
  const bad = figures.health === "failing" || figures.health === "degraded" ? figures.health : "";
  return html`<div class="tiles">
    <${Tile} title="Requests a second" value=${rate(figures.rate)} />
    <${Tile} title="Success" value=${percent(figures.success, 2)} of=${bad} note=${figures.failures ? `${figures.failures} failed` : ""} />
    <${Tile} title="p50" value=${ms(figures.p50)} /><${Tile} title="p95" value=${ms(figures.p95)} /><${Tile} title="p99" value=${ms(figures.p99)} />
    <${Tile} title="Mutual TLS" value=${percent(figures.secured, 0)} /></div>`;
}

// Columns: { name, label, number?, show(row), by?(row) }. A heading sorts; `first` is [name, descending].
export function Table({ columns, rows, first = null, caption, id = (row) => JSON.stringify(row.key ?? row.id), empty = "Nothing here.", most = 200 }) {
  const [sort, set] = useState(first);
  const [all, showAll] = useState(false);
  const column = columns.find((one) => one.name === sort?.[0]);
  const ordered = column?.by ? [...rows].sort((one, other) => order(column.by(one), column.by(other)) * (sort[1] ? -1 : 1)) : rows;
  const shown = all ? ordered : ordered.slice(0, most);
  if (!rows.length) return html`<p class="empty">${empty}</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`${caption}, table`}><table><caption class="unseen">${caption}</caption><thead><tr>
    ${columns.map((one) => html`<th scope="col" class=${one.number ? "number" : ""} data-label=${one.label}
        aria-sort=${sort?.[0] === one.name ? (sort[1] ? "descending" : "ascending") : undefined}>
      ${one.by ? html`<button type="button" onClick=${() => set([one.name, sort?.[0] === one.name ? !sort[1] : Boolean(one.number)])}>${one.label}<span aria-hidden="true">${sort?.[0] === one.name ? (sort[1] ? " ↓" : " ↑") : ""}</span></button>` : one.label}</th>`)}
    </tr></thead><tbody>${shown.map((row) => html`<tr key=${id(row)}>${columns.map((one) => html`<td class=${one.number ? "number" : ""} data-label=${one.label}>${one.show(row)}</td>`)}</tr>`)}</tbody></table>
    ${shown.length < rows.length ? html`<button type="button" onClick=${() => showAll(true)}>Show all ${rows.length}</button>` : null}</div>`;
}

function order(one, other) {
  if (one == null || other == null) return (one == null) - (other == null);
  return one < other ? -1 : one > other ? 1 : 0;
}

// The columns that every table of figures has. `of` leads from a row to its figures.
export function figureColumns(of = (row) => row.figures, curve = true) {
  const number = (name, label, show, by) => ({ name, label, number: true, show: (row) => show(of(row)), by: (row) => by(of(row)) });
  return [
    number("rate", "Rate", (one) => rate(one?.rate), (one) => one?.rate ?? -1),
    ...(curve ? [{ name: "curve", label: "Trend", show: (row) => html`<${Spark} values=${row.series} />` }] : []),
    number("success", "Success", (one) => html`<span class=${one?.failures ? one.health : ""} title=${one?.failures ? reasons(one) : undefined}>${percent(one?.success, 2)}</span>`, (one) => one?.success ?? 2),
    number("p50", "p50", (one) => ms(one?.p50), (one) => one?.p50 ?? -1),
    number("p95", "p95", (one) => ms(one?.p95), (one) => one?.p95 ?? -1),
    number("p99", "p99", (one) => ms(one?.p99), (one) => one?.p99 ?? -1),
    number("secured", "mTLS", (one) => html`${one?.secured === 1 ? html`<${Lock} /> ` : ""}${percent(one?.secured, 0)}`, (one) => one?.secured ?? -1),
  ];
}

export function Lock() {
  return html`<svg class="padlock" viewBox="0 0 10 12" width="9" height="11" aria-hidden="true"><path d=${LOCK} /></svg>`;
}

// A padlock of 10 by 12.
export const LOCK = "M1 5.5h8v6H1zM2.2 5.5V3.6a2.8 2.8 0 0 1 5.6 0v1.9H6.5V3.6a1.5 1.5 0 0 0-3 0v1.9z";

export function Filter({ value, onInput, label = "Filter" }) {
  return html`<input class="filter" type="search" placeholder=${label} aria-label=${label} value=${value} onInput=${(event) => onInput(event.target.value)} />`;
}
