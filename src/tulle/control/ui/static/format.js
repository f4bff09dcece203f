// Figures as people read them; what is not known is a dash.

const NONE = "–";

export function rate(value) {
  if (value == null) return NONE;
  if (value === 0) return "0";
  if (value < 0.01) return "<0.01";
  return value < 10 ? value.toFixed(2) : value < 1000 ? value.toFixed(1) : `${(value / 1000).toFixed(1)}k`;
}

export function percent(share, digits = 1) {
  if (share == null) return NONE;
  const value = 100 * share;
  if (value === 100 || value === 0) return `${value}%`;
  // 99.96% is not all of it.
  return `${value > 99 && value < 100 ? Math.min(99.99, Number(value.toFixed(2))) : value.toFixed(digits)}%`;
}

export function ms(value) {
  if (value == null) return NONE;
  if (value >= 1000) return `${(value / 1000).toFixed(value < 10000 ? 2 : 1)} s`;
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

// Of CPU: what one core gives in a second is 100%.
export function cores(value) {
  return value == null ? NONE : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)}%`;
}

export function megabytes(bytes) {
  return bytes == null ? NONE : `${(bytes / 1048576).toFixed(bytes < 10485760 ? 1 : 0)} MB`;
}

export function ago(seconds, now = Date.now() / 1000) {
  return seconds ? `${span(Math.max(0, now - seconds))} ago` : NONE;
}

export function span(seconds) {
  for (const [name, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length * (name === "min" ? 1 : 2)) return `${Math.floor(seconds / length)} ${name}`;
  }
  return `${Math.floor(seconds)} s`;
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function hour(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

export function short(id) {
  return id.includes("/") ? id.slice(id.indexOf("/") + 1) : id;
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

// Why calls failed: `27 × 503 FI`.
export function reasons(figures) {
  return Object.entries(figures.reasons ?? {}).map(([word, count]) => `${count} × ${word}`).join(", ");
}

// A word of a command line.
export function shell(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
