// The kinds that are served, as discovery tells them.

import { ask } from "./api.js";

const ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
// What people configure a mesh with; the rest is shown where it is named.
const GROUPS = ["gateway.networking.k8s.io", "networking.istio.io", "security.istio.io", "telemetry.istio.io", "tulle.dev"];
const CORE = ["Service", "Namespace", "ServiceAccount", "ConfigMap"];
let known = null;

// [{ group, version, kind, plural, namespaced, shown }], each kind in the version that is preferred.
export function kinds() {
  known ??= load().catch((error) => { known = null; throw error; });
  return known;
}

async function load() {
  const answers = await Promise.all(["/api", "/apis"].map(async (path) => JSON.parse((await ask("GET", path, { accept: ACCEPT })).text)));
  const found = new Map();
  for (const group of answers.flatMap((one) => one.items)) {
    const name = group.metadata?.name ?? "";
    for (const version of group.versions) {
      for (const one of version.resources) {
        const key = `${name} ${one.responseKind.kind}`;
        if (!one.verbs.includes("list") || found.has(key)) continue;
        found.set(key, { group: name, version: version.version, kind: one.responseKind.kind, plural: one.resource, namespaced: one.scope === "Namespaced", shown: GROUPS.includes(name) || (!name && CORE.includes(one.responseKind.kind)) });
      }
    }
  }
  return [...found.values()];
}

export function path({ group, version, plural, namespaced }, namespace = "", name = "") {
  const root = group ? `/apis/${group}/${version}` : `/api/${version}`;
  const space = namespaced && namespace ? `/namespaces/${encodeURIComponent(namespace)}` : "";
  return `${root}${space}/${plural}${name ? `/${encodeURIComponent(name)}` : ""}`;
}

// What an object says of itself: { word, of, why }.
export function status(object) {
  const found = [];
  const look = (conditions) => { for (const one of conditions ?? []) found.push(one); };
  look(object.status?.conditions);
  for (const parent of object.status?.parents ?? []) look(parent.conditions);
  for (const ancestor of object.status?.ancestors ?? []) look(ancestor.conditions);
  for (const listener of object.status?.listeners ?? []) look(listener.conditions);
  const good = (one) => (["Conflicted", "OverlappingTLSConfig"].includes(one.type) ? one.status === "False" : one.status === "True");
  const bad = found.find((one) => one.status === "Unknown" ? false : !good(one));
  if (bad) return { word: bad.reason || `not ${bad.type}`, of: "failing", why: bad.message ?? "" };
  const pending = found.find((one) => one.status === "Unknown");
  if (pending) return { word: pending.reason || "pending", of: "degraded", why: pending.message ?? "" };
  return found.length ? { word: found.at(-1).type, of: "healthy", why: found.at(-1).message ?? "" } : { word: "", of: "idle", why: "" };
}
