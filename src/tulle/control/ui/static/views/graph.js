// Who calls whom: what is drawn, what of it, and what stands beside it.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { setQuery, useData } from "../hooks.js";
import { clock } from "../format.js";
import { compiled, FIELDS } from "../expression.js";
import { Command, Lock, Panel, Wait } from "../parts.js";
import { Drawing } from "../drawing.js";
import { LinkTable, Side } from "../side.js";

const LEVELS = [["app", "Applications"], ["service", "Services"], ["version", "Versioned applications"], ["workload", "Workloads"]];
const RANGES = [["3600", "1 h"], ["10800", "3 h"], ["21600", "6 h"], ["86400", "1 d"], ["604800", "7 d"]];
const LABELS = [["", "no labels"], ["rate", "rate"], ["share", "share"], ["success", "success"], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"]];

export default function Graph({ namespace, seconds, query }) {
  const level = LEVELS.some(([one]) => one === query.level) ? query.level : "app";
  const label = query.label ?? "rate", idle = query.idle !== "no", moving = query.traffic !== "no";
  const [chosen, choose] = useState(null);
  const [until, setUntil] = useState(0);
  const found = useData((signal) => get("/tulle/v1/telemetry/graph", { level, seconds, namespace, idle, until: until || "" }, signal), [level, seconds, namespace, idle], undefined, [until]);
  const [find, findError] = useExpression(query.find ?? ""), [hide, hideError] = useExpression(query.hide ?? "");
  const shown = useMemo(() => {
    const nodes = (found.data?.nodes ?? []).filter((node) => !hide?.(node));
    const ids = new Set(nodes.map((node) => node.id));
    return { nodes, links: (found.data?.links ?? []).filter((one) => ids.has(one.source) && ids.has(one.target)) };
  }, [found.data, hide]);
  // From the table one is taken to where it is shown.
  const pick = (one) => { choose(one); setTimeout(() => document.querySelector(".side .close")?.focus()); };
  const command = `tulle graph ${namespace ? `-n ${namespace}` : "-A"} --level ${level} -t ${seconds}s${idle ? " --idle" : ""}`;
  return html`<div><h1>Graph</h1><div class="controls">
      <${Choice} name="Nodes" value=${level} options=${LEVELS} onChange=${(value) => { choose(null); setQuery({ level: value }); }} />
      <${Choice} name="Labels" value=${label.trim()} options=${LABELS} onChange=${(value) => setQuery({ label: value || " " })} />
      <${Expression} name="Find" value=${query.find ?? ""} error=${findError} onInput=${(value) => setQuery({ find: value })} />
      <${Expression} name="Hide" value=${query.hide ?? ""} error=${hideError} onInput=${(value) => setQuery({ hide: value })} />
      <label class="check"><input type="checkbox" checked=${idle} onChange=${() => setQuery({ idle: idle ? "no" : "" })} /> idle</label>
      <label class="check"><input type="checkbox" checked=${moving} onChange=${() => setQuery({ traffic: moving ? "no" : "" })} /> traffic</label></div>
    <${Wait} of=${found}><div class="graphed ${chosen ? "with-side" : ""}">
      <${Drawing} ...${shown} label=${label.trim()} find=${find} chosen=${chosen} choose=${choose} moving=${moving && !until} fit=${`${level} ${namespace}`} />
      ${chosen ? html`<${Side} of=${chosen} graph=${shown} choose=${choose} seconds=${seconds} level=${level} until=${until} />` : null}</div>
    ${until && found.data?.begins >= until ? html`<p class="caution" role="status">Nothing is known of this time: calls are known since ${clock(found.data.begins)}.</p>` : null}
    <${Replay} begins=${found.data?.begins} seconds=${seconds} until=${until} set=${setUntil} range=${RANGES.some(([one]) => one === query.range) ? query.range : "21600"} />
    <${Legend} /><${Panel} title="The same as a table"><${LinkTable} links=${shown.links} choose=${pick} /><//><//><${Command} line=${command} /></div>`;
}

function Choice({ name, value, options, onChange }) {
  return html`<label>${name} <select value=${value} onChange=${(event) => onChange(event.target.value)}>${options.map(([one, word]) => html`<option key=${one} value=${one}>${word}</option>`)}</select></label>`;
}

function useExpression(text) {
  return useMemo(() => { try { return [compiled(text), ""]; } catch (error) { return [null, error.message]; } }, [text]);
}

function Expression({ name, value, error, onInput }) {
  return html`<label>${name} <input type="search" value=${value} placeholder=${name === "Find" ? "health=failing" : "ns=tulle-system"} onInput=${(event) => onInput(event.target.value)}
      aria-invalid=${error ? "true" : undefined} title=${error || `a part of a name, or conditions on ${FIELDS.join(", ")}`} />${error ? html`<span class="failing" role="alert"> ${error}</span>` : null}</label>`;
}

// The recorded time: the graph as it was.
function Replay({ begins, seconds, until, set, range }) {
  const [playing, play] = useState(false);
  const most = Number(range), known = useRef(0), now = Math.floor(Date.now() / 1000);
  const first = Math.max(now - most, known.current), step = Math.max(60, (now - first) / 120);
  // All that is known in two minutes, or an hour in one, until it has caught up.
  useEffect(() => {
    if (!playing) return undefined;
    const timer = setInterval(() => set((at) => {
      const next = (at || first) + step;
      return next < Date.now() / 1000 ? next : 0;
    }), 1000);
    return () => clearInterval(timer);
  }, [playing, range, Math.round(step)]);
  useEffect(() => { if (playing && !until) play(false); }, [until]);
  // What nobody knows is not played.
  useEffect(() => { if (until && begins >= until) known.current = Math.ceil(begins); }, [begins, until]);
  useEffect(() => { if (playing && until && begins >= until) set(Math.min(now - 30, Math.ceil(begins) + 60)); }, [playing, begins]);
  const back = until ? Math.max(0, now - until) : 0;
  const local = (time) => new Date((time - new Date().getTimezoneOffset() * 60) * 1000).toISOString().slice(0, 16);
  const at = (text) => { const time = Date.parse(text) / 1000; play(false); set(time && time < now ? time : 0); };
  return html`<div class="replay"><label>Replay <input type="range" min=${-most} max="0" step="60" value=${-Math.min(most, back)} aria-valuetext=${until ? clock(until) : "now"}
      onInput=${(event) => set(Number(event.target.value) ? now + Number(event.target.value) : 0)} /></label>
    <${Choice} name="of the last" value=${range} options=${RANGES} onChange=${(value) => setQuery({ range: value })} />
    <button type="button" aria-pressed=${playing} onClick=${() => { if (!playing && !until) set(first); play(!playing); }}>${playing ? "Stop" : "Play"}</button>
    <label>as it was at <input type="datetime-local" max=${local(now)} value=${until ? local(until) : ""} onChange=${(event) => at(event.target.value)} /></label>
    <span role="status">${until ? html`the ${seconds} s until ${clock(until)} <button type="button" onClick=${() => { play(false); set(0); }}>Back to now</button>` : "now"}</span></div>`;
}

function Legend() {
  return html`<details class="legend"><summary>Legend</summary><ul>
    <li><span class="health healthy">●</span> at least 99.9% of the calls went well</li><li><span class="health degraded">▲</span> less than 99.9%, or an endpoint is not ready</li>
    <li><span class="health failing">✖</span> less than 90%, or no endpoint is ready</li><li><span class="health idle">○</span> nobody called</li>
    <li>thicker lines: more requests a second; dashes that move: there is traffic now</li><li><${Lock} /> everything came with mutual TLS</li>
    <li>⇥ a gateway; ↗ a host outside of the mesh; ? a caller that showed no certificate</li></ul></details>`;
}
