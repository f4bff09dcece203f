// Two texts, line by line. Pure.

// → [["same" | "removed" | "added", line]]
export function diff(before, after) {
  const one = before.split("\n"), other = after.split("\n");
  let start = 0, end = 0;
  while (start < one.length && start < other.length && one[start] === other[start]) start += 1;
  while (end < one.length - start && end < other.length - start && one.at(-1 - end) === other.at(-1 - end)) end += 1;
  const a = one.slice(start, one.length - end), b = other.slice(start, other.length - end);
  const middle = a.length * b.length > 4e6 ? [...a.map((line) => ["removed", line]), ...b.map((line) => ["added", line])] : compared(a, b);
  const same = (line) => ["same", line];
  return [...one.slice(0, start).map(same), ...middle, ...one.slice(one.length - end).map(same)];
}

// By the longest common subsequence.
function compared(a, b) {
  const width = b.length + 1, long = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) for (let j = b.length - 1; j >= 0; j -= 1) long[i * width + j] = a[i] === b[j] ? long[(i + 1) * width + j + 1] + 1 : Math.max(long[(i + 1) * width + j], long[i * width + j + 1]);
  const found = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { found.push(["same", a[i]]); i += 1; j += 1; } else if (i < a.length && (j >= b.length || long[(i + 1) * width + j] >= long[i * width + j + 1])) { found.push(["removed", a[i]]); i += 1; } else { found.push(["added", b[j]]); j += 1; }
  }
  return found;
}

// Only what changed and a few lines around it; a null stands for what is left out.
export function around(lines, context = 4) {
  const near = new Set();
  lines.forEach(([kind], at) => { if (kind !== "same") for (let place = at - context; place <= at + context; place += 1) near.add(place); });
  const found = [];
  lines.forEach((line, at) => { if (near.has(at)) found.push(line); else if (found.at(-1) !== null) found.push(null); });
  return near.size ? found : [];
}
