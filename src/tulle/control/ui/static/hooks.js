// State that views share: where the page is, what it asks for, and when it asks again.

import { useEffect, useRef, useState } from "./vendor/preact.js";
import { live, onLive } from "./live.js";

const LEAST = 2000; // ms between two askings of one view

// `#/service/default/reviews?ns=default&t=600` → { path: ["service", "default", "reviews"], query }
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { path: parts.length ? parts : ["overview"], query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

// A link to another view; the namespace and the time that are looked at stay.
export function link(parts, query = {}) {
  const now = place().query;
  const kept = { ns: now.ns, t: now.t, ...query };
  const asked = new URLSearchParams(Object.entries(kept).filter(([, value]) => value));
  return `#/${parts.map(encodeURIComponent).join("/")}${asked.size ? `?${asked}` : ""}`;
}

export function usePlace() {
  const [now, set] = useState(place());
  useEffect(() => {
    const moved = () => set(place());
    addEventListener("hashchange", moved);
    moved(); // somebody may have gone on between the first drawing and this
    return () => removeEventListener("hashchange", moved);
  }, []);
  return now;
}

// Change a word of the query without a new step in the browser's history.
export function setQuery(changes) {
  const { path, query } = place();
  const next = new URLSearchParams(Object.entries({ ...query, ...changes }).filter(([, value]) => value));
  history.replaceState(null, "", `#/${path.map(encodeURIComponent).join("/")}${next.size ? `?${next}` : ""}`);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useLive() {
  const [now, set] = useState({ ...live });
  useEffect(() => onLive((state) => set({ ...state })), []);
  return now;
}

// `load(signal)` now, when `deps` change, and when the mesh has news (`of` says which news count). What is there stays until there
// is something newer: { data, error, loading, again }. Where one of `also` changes it is asked again, and what is there stays.
export function useData(load, deps, of = (state) => `${state?.revision} ${state?.reported} ${state?.proxies} ${state?.synced}`, also = []) {
  const [found, set] = useState({ data: null, error: null, loading: true });
  const work = useRef(null);
  const run = useRef(null);
  run.current = async () => {
    work.current?.abort();
    const controller = new AbortController();
    work.current = controller;
    try {
      const data = await load(controller.signal);
      if (!controller.signal.aborted) set({ data, error: null, loading: false });
    } catch (error) {
      if (!controller.signal.aborted) set((old) => ({ ...old, error, loading: false }));
    }
  };
  useEffect(() => {
    set((old) => ({ ...old, data: null, loading: true }));
    run.current();
    return () => work.current?.abort();
  }, deps);
  const first = useRef(true);
  useEffect(() => { if (first.current) first.current = false; else run.current(); }, also);
  useEffect(() => {
    let last = live.state ? of(live.state) : null, timer = null, begun = Date.now();
    const stop = onLive((state) => {
      if (!state.state) return;
      const now = of(state.state), first = last === null;
      if (now === last || timer) return;
      last = now;
      if (first) return; // what it says is what was just asked for
      timer = setTimeout(() => { timer = null; begun = Date.now(); run.current(); }, Math.max(0, begun + LEAST - Date.now()));
    });
    return () => { stop(); clearTimeout(timer); };
  }, []);
  return { ...found, again: () => run.current() };
}
