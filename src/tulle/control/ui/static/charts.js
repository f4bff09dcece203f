// How calls went over time: how many and how many of them failed, and how long they took. Of a node of the graph, or of a link.

import { html } from "./vendor/preact.js";
import { get } from "./api.js";
import { useData } from "./hooks.js";
import { clock, hour, ms, rate } from "./format.js";
import { Wait } from "./parts.js";

const WIDTH = 300, HEIGHT = 72, LEAST = 300; // seconds: of less there is no curve, for nodes report every 15
const COUNTS = [["all", "all", (one) => one.rate], ["failed", "failed", (one) => (one.calls ? one.rate * one.failures / one.calls : 0)]];
const TIMES = [["p50", "p50", (one) => one.p50], ["p95", "p95", (one) => one.p95], ["p99", "p99", (one) => one.p99]];

// `about`: `{ level, node }` or `{ level, source, target, protocol }`, as the graph has them.
export function Charts({ about, seconds: asked, until = 0 }) {
  const seconds = Math.max(LEAST, asked);
  const found = useData((signal) => get("/tulle/v1/telemetry/parts", { ...about, seconds, points: 60, until: until || "" }, signal), [JSON.stringify(about), seconds], undefined, [until]);
  return html`<div class="charts"><${Wait} of=${found}>${found.data ? html`<${Chart} title="Requests a second" of=${found.data} lines=${COUNTS} show=${rate} /><${Chart} title="Latency" of=${found.data} lines=${TIMES} show=${ms} />` : null}<//></div>`;
}

function Chart({ title, of: { until, step, parts }, lines, show }) {
  const rows = lines.map(([name, word, value]) => [name, word, parts.map((one) => (one ? value(one) ?? null : null))]);
  const known = rows.flatMap(([, , values]) => values.filter((one) => one !== null));
  if (!known.length) return html`<figure class="chart"><figcaption>${title}</figcaption><p class="empty">Nothing is known of this time.</p></figure>`;
  const top = Math.max(...known, 1e-9), width = WIDTH / parts.length, time = (at) => until - (parts.length - at) * step;
  const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 6);
  const last = (values) => values.findLast((one) => one !== null);
  const words = rows.map(([, word, values]) => `${word} now ${show(last(values))}, at most ${show(Math.max(...values.filter((one) => one !== null), 0))}`).join("; ");
  return html`<figure class="chart"><figcaption>${title}<span class="faint">${show(top)} at most</span></figcaption>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${title}: ${words}"><line class="floor" x1="0" x2=${WIDTH} y1=${HEIGHT - 2} y2=${HEIGHT - 2} />
      ${rows.map(([name, , values]) => html`<path class="curve ${name}" d=${pieces(values, width, y)} />`)}
      ${parts.map((one, at) => html`<rect class="part" x=${at * width} width=${width} y="0" height=${HEIGHT}><title>${clock(time(at))}: ${one ? rows.map(([, word, values]) => `${word} ${show(values[at])}`).join(", ") : "not known"}</title></rect>`)}</svg>
    <div class="faint ends-of"><span>${hour(time(0))}</span><span>${rows.map(([name, word, values]) => html`<span class="key"><svg width="18" height="8" aria-hidden="true"><path class="curve ${name}" d="M0 4H18" /></svg> ${word} ${show(last(values))}</span>`)}</span><span>${hour(until)}</span></div></figure>`;
}

// What is not known is a gap.
function pieces(values, width, y) {
  let drawn = "", open = false;
  values.forEach((value, at) => {
    if (value === null) { open = false; return; }
    drawn += `${open ? "L" : "M"}${((at + 0.5) * width).toFixed(1)} ${y(value).toFixed(1)}${open ? "" : "h.1"}`;
    open = true;
  });
  return drawn;
}
