// What to find, and what to hide: `reviews`, `ns=shop health=failing`, `error>1 or p99>500`, `!mtls=100`. Pure.
// Words beside each other must all hold; `or` begins anew; `!` or `not` turns one round.

const TEXTS = { name: (one) => one.name, ns: (one) => one.namespace, version: (one) => one.version ?? "", health: (one) => one.health ?? "idle", role: (one) => one.role ?? "mesh" };
const NUMBERS = {
  rate: (one) => one.figures.rate,
  error: (one) => (one.figures.success == null ? 0 : 100 * (1 - one.figures.success)),
  p50: (one) => one.figures.p50 ?? 0,
  p95: (one) => one.figures.p95 ?? 0,
  p99: (one) => one.figures.p99 ?? 0,
  mtls: (one) => 100 * (one.figures.secured ?? 0),
};
export const FIELDS = [...Object.keys(TEXTS), ...Object.keys(NUMBERS)];

// A function of a node, or null for an empty text. Raises an Error that says what was found and needed.
export function compiled(text) {
  const words = text.trim().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const groups = [[]];
  let turned = false;
  for (const word of words) {
    const lower = word.toLowerCase();
    if (lower === "or") { groups.push([]); continue; }
    if (lower === "and") continue;
    if (lower === "not") { turned = !turned; continue; }
    const bang = word.startsWith("!") && word.length > 1;
    const test = one(bang ? word.slice(1) : word);
    groups.at(-1).push(turned !== bang ? (node) => !test(node) : test);
    turned = false;
  }
  if (groups.some((group) => !group.length)) throw new Error("found nothing beside `or`; needed a condition");
  return (node) => groups.some((group) => group.every((test) => test(node)));
}

function one(word) {
  const [, field, sign, value] = /^([a-z0-9]+)(>=|<=|!=|=|~|>|<)(.*)$/i.exec(word) ?? [];
  if (!field) return (node) => node.id.toLowerCase().includes(word.toLowerCase());
  const name = field.toLowerCase();
  if (name in TEXTS) {
    const wanted = value.toLowerCase(), of = (node) => TEXTS[name](node).toLowerCase();
    if (sign === "=") return (node) => of(node) === wanted;
    if (sign === "!=") return (node) => of(node) !== wanted;
    if (sign === "~") return (node) => of(node).includes(wanted);
    throw new Error(`${field}: found ${sign}; needed =, != or ~`);
  }
  if (!(name in NUMBERS)) throw new Error(`found ${field}; needed one of ${FIELDS.join(", ")}`);
  const wanted = Number(value), of = NUMBERS[name];
  if (value === "" || Number.isNaN(wanted)) throw new Error(`${field}: found ${value || "nothing"}; needed a number`);
  return { ">": (node) => of(node) > wanted, "<": (node) => of(node) < wanted, ">=": (node) => of(node) >= wanted, "<=": (node) => of(node) <= wanted, "=": (node) => Math.abs(of(node) - wanted) < 0.05, "!=": (node) => Math.abs(of(node) - wanted) >= 0.05, "~": () => true }[sign];
}
