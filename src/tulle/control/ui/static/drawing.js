// The graph as SVG: nodes in boxes of their namespaces, links as lines. While it is moved or zoomed the browser moves a picture of
// it and draws nothing anew; what many links cannot show anyway (labels, traffic) is left out.

import { html, useEffect, useMemo, useRef } from "./vendor/preact.js";
import { ms, percent, rate } from "./format.js";
import { curve, layout, NODE } from "./layout.js";
import { LOCK } from "./parts.js";

const SIGNS = { healthy: "●", degraded: "▲", failing: "✖", idle: "○" };
const ROLES = { gateway: "⇥ ", outside: "↗ ", unknown: "? ", unanswered: "" };
const MOVING = 150, LABELLED = 300; // links; more are not animated, and have no labels but where a node is chosen

export function Drawing({ nodes, links, label, find, chosen, choose, moving, fit }) {
  const frame = useRef(null), stage = useRef(null), view = useRef({ x: 0, y: 0, scale: 1 }), still = useRef(0);
  const shape = nodes.map((node) => node.id).join("\n") + links.map((one) => `${one.source} ${one.target}`).join("\n");
  const drawn = useMemo(() => layout(nodes, links), [shape]);
  const move = (change) => {
    Object.assign(view.current, change);
    const { x, y, scale } = view.current;
    stage.current.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    stage.current.style.willChange = "transform";
    clearTimeout(still.current);
    still.current = setTimeout(() => { if (stage.current) stage.current.style.willChange = ""; }, 200); // and sharp again
  };
  const whole = () => {
    const box = frame.current.getBoundingClientRect();
    const fitting = Math.min((box.width - 24) / Math.max(1, drawn.width), (box.height - 24) / Math.max(1, drawn.height));
    // Where it would be too small to read, on a phone, it begins with what fails, or at the left, and is moved.
    const scale = Math.min(1.15, box.width < 600 ? Math.max(0.6, fitting) : fitting);
    const spare = box.width - drawn.width * scale, worst = nodes.find((node) => node.health === "failing") ?? nodes.find((node) => node.health === "degraded");
    const middle = worst ? box.width / 2 - (drawn.places.get(worst.id).x + NODE.width / 2) * scale : 6;
    move({ scale, x: spare >= 12 ? spare / 2 : Math.min(6, Math.max(spare - 6, middle)), y: Math.max(12, (box.height - drawn.height * scale) / 2) });
  };
  const zoom = (by, at = null) => {
    const box = frame.current.getBoundingClientRect(), { x, y, scale } = view.current;
    const point = at ?? { x: box.width / 2, y: box.height / 2 };
    const next = Math.min(3, Math.max(0.05, scale * by));
    move({ scale: next, x: point.x - (point.x - x) * (next / scale), y: point.y - (point.y - y) * (next / scale) });
  };
  useEffect(whole, [fit, drawn.width, drawn.height]);
  const refit = useRef(whole);
  refit.current = whole;
  useEffect(() => {
    const observer = new ResizeObserver(() => refit.current());
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => moved(frame.current, view, move, zoom), []);
  const lively = moving && links.length <= MOVING;
  const calling = new Map();
  for (const one of links) calling.set(one.source, (calling.get(one.source) ?? 0) + one.figures.rate);
  const near = chosen?.node ? new Set(links.flatMap((one) => (one.source === chosen.node ? [one.target] : one.target === chosen.node ? [one.source] : []))) : null;
  const dim = (id) => (find ? !find(nodes.find((node) => node.id === id)) : near && id !== chosen.node && !near.has(id));
  return html`<div class="drawing" ref=${frame}>
    <div class="stage" ref=${stage}><svg role="group" aria-label="Who calls whom: ${nodes.length} nodes, ${links.length} links. The table below has the same." class=${lively ? "lively" : ""} width=${drawn.width} height=${drawn.height + 60}>
      <defs>${["healthy", "degraded", "failing", "idle"].map((one) => html`<marker id="end-${one}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto" class="end ${one}"><path d="M0 0 8 4 0 8z" /></marker>`)}</defs>
      <g>${drawn.boxes.map((box) => html`<g key=${box.namespace} class="box"><rect x=${box.x} y=${box.y} width=${box.width} height=${box.height} rx="10" /><text x=${box.x + 12} y=${box.y + 19}>${box.namespace || "outside"}</text></g>`)}
        ${links.map((one) => html`<${Line} key=${`${one.source} ${one.target} ${one.protocol}`} one=${one} places=${drawn.places} label=${links.length <= LABELLED || near && (one.source === chosen.node || one.target === chosen.node) ? label : null} lively=${lively} choose=${choose}
            chosen=${chosen?.link === one || (chosen?.source === one.source && chosen?.target === one.target)} dim=${near ? one.source !== chosen.node && one.target !== chosen.node : find ? dim(one.source) && dim(one.target) : false} />`)}
        ${nodes.map((node) => html`<${Box} key=${node.id} node=${node} out=${calling.get(node.id)} place=${drawn.places.get(node.id)} chosen=${chosen?.node === node.id} dim=${dim(node.id)} choose=${choose} />`)}</g></svg></div>
    <div class="zoom"><button type="button" aria-label="Larger" onClick=${() => zoom(1.25)}>+</button><button type="button" aria-label="Smaller" onClick=${() => zoom(0.8)}>−</button><button type="button" aria-label="Everything" onClick=${whole}>⤢</button></div></div>`;
}

function Box({ node, out, place, chosen, dim, choose }) {
  const health = node.health ?? "idle", calls = health === "idle" && out !== undefined, name = node.version && !node.name.endsWith(node.version) ? `${node.name} ${node.version}` : node.name;
  const press = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose({ node: node.id }); } };
  return html`<g class="node ${calls ? "calls" : health} ${node.role ?? ""} ${chosen ? "chosen" : ""} ${dim ? "dim" : ""}" transform="translate(${place.x} ${place.y})" tabindex="0" role="button"
      aria-label="${name} in ${node.namespace || "no namespace"}: ${health}, ${rate(node.figures.rate)} requests a second" aria-pressed=${chosen ? "true" : "false"}
      data-node=${node.id} onClick=${() => choose({ node: node.id })} onKeyDown=${press}>
    <title>${node.id}</title><rect width=${NODE.width} height=${NODE.height} rx="8" /><text class="name" x="12" y="19">${ROLES[node.role] ?? ""}${cut(name, 20)}</text>
    <text class="figures" x="12" y="35"><tspan class="sign">${calls ? "→" : SIGNS[health]}</tspan> ${node.figures.calls ? `${rate(node.figures.rate)}/s  ${percent(node.figures.success)}` : node.ready < node.workloads ? `${node.ready} of ${node.workloads} ready` : calls ? `calls, ${rate(out)}/s` : "idle"}</text></g>`;
}

function Line({ one, places, label, lively, choose, chosen, dim }) {
  const from = places.get(one.source), to = places.get(one.target);
  if (!from || !to) return null;
  const { path, x, y } = curve(from, to), health = one.figures.health, width = 1.2 + Math.min(5, Math.log2(1 + one.figures.rate));
  const share = one.share ?? 1;
  const text = { rate: `${rate(one.figures.rate)}/s`, share: percent(share, 0), success: percent(one.figures.success), p50: ms(one.figures.p50), p95: ms(one.figures.p95), p99: ms(one.figures.p99) }[label] ?? "";
  const locked = label !== null && one.figures.secured === 1;
  const pick = () => choose({ source: one.source, target: one.target, protocol: one.protocol });
  return html`<g class="link ${health} ${chosen ? "chosen" : ""} ${dim ? "dim" : ""}" data-link="${one.source} ${one.target}" onClick=${pick}>
    <title>${one.source} → ${one.target}</title>${label === null ? null : html`<path class="wide" d=${path} />`}<path class="line" d=${path} stroke-width=${width} marker-end="url(#end-${health})" />${lively && one.figures.rate > 0 ? html`<path class="flow" d=${path} stroke-width=${width} />` : null}
    ${locked ? html`<path class="lock" d=${LOCK} transform="translate(${x - (text ? 9 + 3.2 * text.length : 5)} ${y - 15.5})" />` : null}${text ? html`<text x=${x + (locked ? 6 : 0)} y=${y - 5} text-anchor="middle">${text}</text>` : null}</g>`;
}

function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// Dragging, the wheel, two fingers. Returns how to let go of them.
function moved(frame, view, move, zoom) {
  const fingers = new Map();
  const at = (event) => { const box = frame.getBoundingClientRect(); return { x: event.clientX - box.left, y: event.clientY - box.top }; };
  const down = (event) => { if (!event.target.closest("button")) fingers.set(event.pointerId, at(event)); };
  const over = (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const now = at(event), other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) zoom(Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(last.x - other.x, last.y - other.y)), other);
    else move({ x: view.current.x + now.x - last.x, y: view.current.y + now.y - last.y });
    fingers.set(event.pointerId, now);
  };
  const up = (event) => fingers.delete(event.pointerId);
  const wheel = (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), at(event)); };
  frame.addEventListener("pointerdown", down);
  frame.addEventListener("wheel", wheel, { passive: false });
  addEventListener("pointermove", over);
  addEventListener("pointerup", up);
  addEventListener("pointercancel", up);
  return () => { removeEventListener("pointermove", over); removeEventListener("pointerup", up); removeEventListener("pointercancel", up); };
}
