// One trace as a waterfall: who was asked when, and how long it took.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { useData } from "../hooks.js";
import { clock, ms, shell } from "../format.js";
import { Command, Panel, Wait } from "../parts.js";

const ROW = 26, LEFT = 320, RIGHT = 560;

export default function Trace({ path: [id] }) {
  const found = useData((signal) => get(`/tulle/v1/telemetry/traces/${encodeURIComponent(id)}`, {}, signal), [id], () => "");
  const [chosen, choose] = useState(null);
  const trace = found.data, step = trace?.steps.find((one) => one.id === chosen);
  return html`<div><h1>Trace ${id}</h1><${Wait} of=${found}>${trace ? html`<p class="faint">${clock(trace.start)}, ${ms(trace.duration)}, ${trace.steps.length} spans</p>
    <${Panel} title="Waterfall"><div class="scroll" tabindex="0" role="region" aria-label="Waterfall"><${Waterfall} trace=${trace} chosen=${chosen} choose=${choose} /></div><${Command} line=${`tulle traces ${shell(id)}`} /><//>
    ${step ? html`<${Panel} title=${`${step.service} ${step.name}`}><dl class="facts"><dt>Workload</dt><dd>${step.workload}</dd><dt>Kind</dt><dd>${step.kind}</dd><dt>Began after</dt><dd>${ms(step.start)}</dd><dt>Took</dt><dd>${ms(step.duration)}</dd>${step.moved ? html`<dt>Clock</dt><dd>put right by ${ms(step.moved)}</dd>` : null}${Object.entries(step.tags ?? {}).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl><//>` : null}` : null}<//></div>`;
}

function Waterfall({ trace, chosen, choose }) {
  const height = ROW * trace.steps.length + 24, scale = RIGHT / Math.max(0.001, trace.duration);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => part * trace.duration);
  return html`<svg class="waterfall" viewBox="0 0 ${LEFT + RIGHT + 90} ${height}" role="group" aria-label="${trace.steps.length} spans">
    ${ticks.map((tick) => html`<g key=${tick}><line class="grid" x1=${LEFT + tick * scale} x2=${LEFT + tick * scale} y1="18" y2=${height} /><text x=${LEFT + tick * scale + 3} y="12">${ms(tick)}</text></g>`)}
    ${trace.steps.map((step, at) => html`<g key=${step.id + step.kind} class="step ${step.failed ? "failing" : ""} ${chosen === step.id ? "chosen" : ""}" tabindex="0" role="button" aria-label="${step.service} ${step.name}, ${step.kind}, ${ms(step.duration)}${step.failed ? ", failed" : ""}"
        onClick=${() => choose(step.id)} onKeyDown=${(event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(step.id); } }}>
      <rect class="row" x="0" y=${20 + at * ROW} width=${LEFT + RIGHT + 90} height=${ROW} /><text x=${8 + Math.min(step.depth, 12) * 12} y=${37 + at * ROW}>${step.failed ? "✖ " : ""}${`${step.service} ${step.name}`.slice(0, 42 - Math.min(step.depth, 12) * 2)}</text>
      <rect class="bar-of" x=${LEFT + step.start * scale} y=${27 + at * ROW} width=${Math.max(2, step.duration * scale)} height="12" rx="2" /><text class="took" x=${LEFT + (step.start + step.duration) * scale + 5} y=${37 + at * ROW}>${ms(step.duration)}</text></g>`)}</svg>`;
}
