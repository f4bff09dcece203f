// Where nodes stand: columns by how far they are from where calls begin, rows by namespace, so that each namespace is one box.
// Pure: nodes and links in, places out; the same for the same input.

export const NODE = { width: 168, height: 44 };
const GAP = { x: 120, y: 18, box: 26, column: 16 };
const MOST = 14; // nodes of one namespace below one another; more make a second column

// → { places: Map(id → {x, y}), boxes: [{ namespace, x, y, width, height }], width, height }
export function layout(nodes, links) {
  const layers = layered(nodes, links);
  const neighbours = new Map(nodes.map((node) => [node.id, []]));
  for (const one of links) {
    neighbours.get(one.target)?.push(one.source);
    neighbours.get(one.source)?.push(one.target);
  }
  const spaces = ordered(nodes, layers);
  const rank = new Map();
  for (const members of spaces.values()) for (const [at, node] of members.entries()) rank.set(node.id, at);
  const columns = widths(spaces, layers);
  const places = new Map(), boxes = [];
  let top = 0, right = 0;
  for (const [namespace, members] of spaces) {
    const byLayer = new Map();
    for (const node of members) {
      const layer = layers.get(node.id);
      byLayer.set(layer, [...(byLayer.get(layer) ?? []), node]);
    }
    let height = 0, left = Infinity, end = 0;
    for (const [layer, column] of [...byLayer].sort(([one], [other]) => one - other)) {
      // Near to those it has to do with: the mean of where they stand already.
      const mean = (node) => {
        const known = neighbours.get(node.id).map((id) => places.get(id)?.y ?? null).filter((y) => y !== null);
        return known.length ? known.reduce((sum, y) => sum + y, 0) / known.length : top + rank.get(node.id) * (NODE.height + GAP.y);
      };
      const sorted = column.map((node) => [mean(node), node]).sort(([one, a], [other, b]) => one - other || (a.id < b.id ? -1 : 1));
      sorted.forEach(([, node], at) => {
        const x = columns[layer] + Math.floor(at / MOST) * (NODE.width + GAP.column);
        const y = top + GAP.box + 8 + (at % MOST) * (NODE.height + GAP.y);
        places.set(node.id, { x, y });
        height = Math.max(height, y + NODE.height - top);
        left = Math.min(left, x);
        end = Math.max(end, x + NODE.width);
      });
    }
    boxes.push({ namespace, x: left - 14, y: top, width: end - left + 28, height: height + 14 });
    top += height + 14 + GAP.box;
    right = Math.max(right, end + 14);
  }
  return { places, boxes, width: right + 14, height: Math.max(0, top - GAP.box) };
}

// How far each is from where calls begin; a link that leads back counts for nothing.
function layered(nodes, links) {
  const out = new Map(nodes.map((node) => [node.id, []]));
  const called = new Set();
  for (const one of links) {
    if (one.source === one.target || !out.has(one.target)) continue;
    out.get(one.source)?.push(one.target);
    called.add(one.target);
  }
  const state = new Map(), done = [], back = new Set();
  const starts = [...nodes].sort((one, other) => called.has(one.id) - called.has(other.id) || (one.id < other.id ? -1 : 1));
  for (const start of starts) {
    const stack = state.has(start.id) ? [] : [[start.id, 0]];
    if (stack.length) state.set(start.id, 1);
    while (stack.length) {
      const top = stack.at(-1), [id, at] = top, targets = out.get(id);
      if (at >= targets.length) { state.set(id, 2); done.push(id); stack.pop(); continue; }
      top[1] += 1;
      const next = targets[at];
      if (!state.has(next)) { state.set(next, 1); stack.push([next, 0]); } else if (state.get(next) === 1) back.add(`${id}\n${next}`);
    }
  }
  const layers = new Map(nodes.map((node) => [node.id, 0]));
  for (const id of done.reverse()) {
    for (const next of out.get(id)) if (!back.has(`${id}\n${next}`)) layers.set(next, Math.max(layers.get(next), layers.get(id) + 1));
  }
  return layers;
}

// Namespaces: where calls come from above; within one by layer and name.
function ordered(nodes, layers) {
  const spaces = new Map();
  for (const node of nodes) spaces.set(node.namespace, [...(spaces.get(node.namespace) ?? []), node]);
  const first = (members) => Math.min(...members.map((node) => layers.get(node.id)));
  const sorted = [...spaces].sort(([one, a], [other, b]) => first(a) - first(b) || b.length - a.length || (one < other ? -1 : 1));
  return new Map(sorted.map(([name, members]) => [name, members.sort((a, b) => layers.get(a.id) - layers.get(b.id) || (a.id < b.id ? -1 : 1))]));
}

// Where each layer begins: wide enough for the namespace that needs most columns there.
function widths(spaces, layers) {
  const need = [];
  for (const members of spaces.values()) {
    const counts = new Map();
    for (const node of members) counts.set(layers.get(node.id), (counts.get(layers.get(node.id)) ?? 0) + 1);
    for (const [layer, count] of counts) need[layer] = Math.max(need[layer] ?? 1, Math.ceil(count / MOST));
  }
  const found = [];
  let x = 14;
  for (let layer = 0; layer < need.length; layer += 1) {
    found.push(x);
    const columns = need[layer] ?? 1;
    x += columns * NODE.width + (columns - 1) * GAP.column + GAP.x;
  }
  return found;
}

// The line from one node to another: to the right where it leads on, around below where it leads back.
export function curve(from, to) {
  const y1 = from.y + NODE.height / 2, y2 = to.y + NODE.height / 2;
  if (to.x > from.x) {
    const x1 = from.x + NODE.width, x2 = to.x - 6, bend = Math.max(30, (x2 - x1) / 2);
    return { path: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, x: (x1 + x2) / 2, y: (y1 + y2) / 2 };
  }
  const x1 = from.x + NODE.width / 2, x2 = to.x + NODE.width / 2, low = Math.max(from.y, to.y) + NODE.height;
  const end = to.y + NODE.height + 6;
  return { path: `M${x1} ${from.y + NODE.height}C${x1} ${low + 34} ${x2} ${low + 34} ${x2} ${end}`, x: (x1 + x2) / 2, y: low + 26 };
}
