// What `/metrics` of a control plane says, as a person reads it: how soon work is done, and what was refused, dropped or lost. Pure.

// A text of Prometheus → [{ name, labels, value }].
export function parsed(text) {
  return text.split("\n").filter((line) => line && !line.startsWith("#")).map((line) => {
    const [, name, labels = "", value] = /^([\w:]+)(?:\{(.*)\})? (\S+)/.exec(line) ?? [null, line, "", ""];
    return { name, labels, value: Number(value) };
  });
}

const rows = (metrics, name, label = "") => metrics.filter((one) => one.name === name && one.labels.includes(label));
export const sum = (metrics, name, label = "") => rows(metrics, name, label).reduce((total, one) => total + one.value, 0);

// The bound (s) within which a share of what a histogram counted was done; null: nothing was, Infinity: above all bounds.
export function within(metrics, name, share, label = "") {
  const bounds = new Map();
  for (const { labels, value } of rows(metrics, `${name}_bucket`, label)) {
    const le = /le="([^"]*)"/.exec(labels)?.[1];
    const bound = le === "+Inf" ? Infinity : Number(le);
    bounds.set(bound, (bounds.get(bound) ?? 0) + value);
  }
  const all = bounds.get(Infinity) ?? 0;
  return all ? [...bounds].sort(([one], [other]) => one - other).find(([, value]) => value >= share * all)[0] : null;
}

// What must not be (that of many calls only a sample is recorded is not among it): { name, what, where to look }. Those that are 0 are left out.
const LOSSES = [
  ["pilot_total_xds_rejects", "configuration that proxies refused", "proxies"],
  ["tulle_report_left_out_total", "rows of nodes' reports that made no sense"],
  ["tulle_recorded_left_out_total", "recorded calls of nodes that made no sense"],
  ["tulle_window_dropped_total", "calls of more kinds than there is room for"],
  ["tulle_recorded_unwritten_total", "times that the record of calls could not be written to disk"],
  ["tulle_spans_dropped_total", "spans of traces that there was no room for", "traces"],
  ["tulle_traces_evicted_total", "traces that went before their time", "traces"],
  ["tulle_prometheus_failures_total", "times that Prometheus gave no answer"],
  ["tulle_jwks_failed_total", "key sets for tokens that could not be read"],
  ["tulle_certificates_late", "certificates that should have been renewed", "certificates"],
  ["tulle_ca_refused_total", "requests for certificates that were refused", "certificates"],
  ["tulle_handshakes_refused_total", "client certificates that the API server did not accept"],
  ["tulle_xds_refused_total", "streams of proxies that were refused or ended"],
];

export function losses(metrics) {
  return LOSSES.map(([name, what, view]) => ({ name, what, view, value: sum(metrics, name) })).filter((one) => one.value > 0);
}
