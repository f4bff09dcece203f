// Rate limits: how close each is, how it is split over the proxies, which keys are refused, and whose requests.

import { html, useState } from "../vendor/preact.js";
import { get } from "../api.js";
import { link, useData } from "../hooks.js";
import { percent, rate } from "../format.js";
import { Command, Filter, Health, Panel, Table, Wait } from "../parts.js";

function stateOf(rule) {
  if (rule.failing >= 0.05) return { of: "failing", word: `${rate(rule.failing)}/s not counted, ${rule.denies ? "refused" : "let through"}` };
  if (rule.shadow) return { of: "idle", word: "shadow: nothing is refused" };
  if (rule.over >= 0.05) return { of: "degraded", word: "refusing" };
  return rule.used !== null && rule.used >= 0.8 ? { of: "degraded", word: "near" } : { of: "healthy", word: "within" };
}

const objectOf = (rule) => rule.rule.split("/").slice(0, 2).join("/");
// A key is what a caller has chosen; the one that begins so is of all for which there was no room.
const keyOf = (key) => (key === "" ? "(none)" : key.startsWith("\u0000") ? "(all others)" : key);
const RULES = [
  { name: "state", label: "State", by: (one) => stateOf(one).of, show: (one) => html`<${Health} of=${stateOf(one).of} word=${false} /> ${stateOf(one).word}` },
  { name: "rule", label: "Rule", by: (one) => one.rule, show: (one) => html`<a href=${link(["limits", ...one.rule.split("/")])}>${one.rule}</a>` },
  { name: "counting", label: "Counted", by: (one) => one.counting, show: (one) => one.counting },
  { name: "limit", label: "Limit", number: true, by: (one) => one.limit / one.window, show: (one) => `${one.limit} / ${one.window} s${one.burst ? ` + ${one.burst}` : ""}${one.keyed ? " a key" : ""}` },
  { name: "rate", label: "Comes /s", number: true, by: (one) => one.rate, show: (one) => rate(one.rate) },
  { name: "over", label: "Over /s", number: true, by: (one) => one.over, show: (one) => rate(one.over) },
  { name: "refused", label: "Refused", number: true, by: (one) => one.refused, show: (one) => one.refused },
  { name: "used", label: "Used", number: true, by: (one) => one.used ?? -1, show: (one) => percent(one.used, 0) },
];
const PROXIES = [
  { name: "proxy", label: "Proxy", by: (one) => one.proxy, show: (one) => html`<a href=${link(["workload", ...one.proxy.split("/")])}>${one.proxy}</a>` },
  { name: "share", label: "Share", number: true, by: (one) => one.share, show: (one) => percent(one.share) },
  { name: "rate", label: "Comes /s", number: true, by: (one) => one.rate, show: (one) => rate(one.rate) },
  { name: "over", label: "Over /s", number: true, by: (one) => one.over, show: (one) => rate(one.over) },
];
const KEYS = [
  { name: "key", label: "Key", by: (one) => one.key, show: (one) => html`<code>${keyOf(one.key)}</code>` },
  { name: "used", label: "Used", number: true, by: (one) => one.used, show: (one) => percent(one.used, 0) },
  { name: "allowed", label: "Passed", number: true, by: (one) => one.allowed, show: (one) => one.allowed },
  { name: "refused", label: "Refused", number: true, by: (one) => one.refused, show: (one) => one.refused },
];
const CALLERS = [
  { name: "source", label: "Caller", by: (one) => one.source, show: (one) => (one.source ? html`<a href=${link(["workload", ...one.source.split("/")])}>${one.source}</a>` : "not of the mesh") },
  { name: "service", label: "Service", by: (one) => one.service, show: (one) => one.service },
  { name: "refused", label: "Refused", number: true, by: (one) => one.refused, show: (one) => one.refused },
  { name: "calls", label: "Of", number: true, by: (one) => one.calls, show: (one) => one.calls },
];

export default function Limits({ path, namespace, seconds }) {
  const [filter, setFilter] = useState("");
  const wanted = path.length ? path.join("/") : namespace ? `${namespace}/` : "";
  const found = useData((signal) => get("/tulle/v1/telemetry/limits", { rule: wanted, seconds }, signal), [wanted, seconds]);
  const rules = (found.data?.rules ?? []).filter((one) => one.rule.includes(filter));
  const chosen = path.length === 3 ? rules.find((one) => one.rule === wanted) : null;
  return html`<div><h1>${chosen ? chosen.rule : "Rate limits"}</h1>
    <${Panel} title="Rules" more=${html`<${Filter} value=${filter} onInput=${setFilter} />`}><${Wait} of=${found}><${Table} caption="Rules" columns=${RULES} rows=${rules} first=${["over", true]} id=${(one) => one.rule} empty="There is no rate limit that a proxy enforces." /><//>
      <${Command} line=${chosen ? `tulle ratelimit status ${chosen.rule.split("/")[1]} -n ${chosen.rule.split("/")[0]}` : "tulle ratelimit status -A"} /><//>
    ${chosen ? html`<${Details} rule=${chosen} />` : null}
    ${chosen ? null : html`<${Panel} title="Refused most"><${Wait} of=${found}><${Table} caption="Refused most" columns=${CALLERS} rows=${found.data?.callers ?? []} first=${["refused", true]} id=${(one) => `${one.source} ${one.service}`} empty="Nobody was refused by a limit." /><//><${Command} line="tulle ratelimit status -A" /><//>`}</div>`;
}

function Details({ rule }) {
  return html`<p>${rule.bound}. <a href=${link(["object", "RateLimit", ...objectOf(rule).split("/")])}>RateLimit ${objectOf(rule)}</a></p>
    ${rule.proxies.length ? html`<${Panel} title="Proxies"><${Table} caption="Proxies" columns=${PROXIES} rows=${rule.proxies} first=${["share", true]} id=${(one) => one.proxy} /><//>` : null}
    ${rule.keys.length ? html`<${Panel} title="Keys"><${Table} caption="Keys" columns=${KEYS} rows=${rule.keys} first=${["refused", true]} id=${(one) => one.key} /><//>` : null}`;
}
