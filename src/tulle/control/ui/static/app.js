// The shell: who is logged in, where the page is, and the view that belongs there. Views are loaded when they are looked at.

import { html, render, useEffect, useState } from "./vendor/preact.js";
import { get, session } from "./api.js";
import { link, setQuery, useLive, usePlace } from "./hooks.js";
import { start, stop } from "./live.js";
import { ago } from "./format.js";
import { Login } from "./login.js";
import { Trouble } from "./parts.js";

const VIEWS = [
  ["overview", "Overview", "◫"],
  ["graph", "Graph", "⌬"],
  ["services", "Services", "◎"],
  ["workloads", "Workloads", "▣"],
  ["config", "Configuration", "≡"],
  ["traces", "Traces", "⋔"],
  ["limits", "Rate limits", "⊟"],
  ["rollouts", "Roll-outs", "⇗"],
  ["proxies", "Proxies", "⇄"],
  ["certificates", "Certificates", "◈"],
  ["mesh", "Mesh health", "♥"],
];
// A view that stands below another in the menu.
const BELOW = { service: "services", workload: "workloads", object: "config", trace: "traces", rollout: "rollouts" };
const TIMES = [["60", "1 min"], ["300", "5 min"], ["600", "10 min"], ["1800", "30 min"], ["3600", "1 h"], ["10800", "3 h"], ["21600", "6 h"]];

function App() {
  // null: not known yet; false: somebody has to log in.
  const [user, setUser] = useState(null);
  const [trouble, setTrouble] = useState(null);
  const enter = async () => {
    try {
      const status = await get("/tulle/v1/status");
      setUser({ status });
      setTrouble(null);
      start();
    } catch (error) {
      stop();
      if (error.status === 401) { session.token = ""; setUser(false); } else { setTrouble(error); }
    }
  };
  useEffect(() => { enter(); }, []);
  if (user === false) return html`<${Login} entered=${enter} />`;
  if (!user) return html`<main class="alone">${trouble ? html`<${Trouble} error=${trouble} /><p><button type="button" onClick=${enter}>Try again</button> <button type="button" onClick=${() => setUser(false)}>Log in</button></p>` : html`<p class="waiting" role="status">Loading…</p>`}</main>`;
  return html`<${Shell} status=${user.status} leave=${session.token ? () => { session.token = ""; stop(); setUser(false); } : null} />`;
}

function Shell({ status, leave }) {
  const { path, query } = usePlace();
  const [open, setOpen] = useState(false);
  const [name] = path;
  const current = BELOW[name] ?? name;
  useEffect(() => { setOpen(false); document.getElementById("main")?.focus({ preventScroll: true }); scrollTo(0, 0); }, [path.join("/")]);
  useEffect(() => { document.title = `${path.slice(1).join("/") || VIEWS.find(([one]) => one === name)?.[1] || name} · tulle`; }, [path.join("/")]);
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <header class="bar">
      <button type="button" class="menu" aria-expanded=${open} aria-controls="menu" onClick=${() => setOpen(!open)}><span aria-hidden="true">☰</span><span class="unseen">Menu</span></button>
      <a class="brand" href=${link(["overview"])}><img src="icon.svg" alt="" width="22" height="22" />tulle</a>
      <${Scope} query=${query} />
      <${Pulse} />
      <${Theme} />
      ${leave ? html`<button type="button" onClick=${leave}>Log out</button>` : null}
    </header>
    <nav id="menu" class=${open ? "open" : ""} aria-label="Views"><ul>${VIEWS.map(([one, label, sign]) => html`<li key=${one}>
      <a href=${link([one])} aria-current=${one === current ? "page" : undefined}><span class="sign" aria-hidden="true">${sign}</span>${label}</a></li>`)}</ul>
      <p class="faint about">tulle ${status.version}<br />${status.trustDomain}</p></nav>
    <main id="main" tabindex="-1"><${Notice} /><${View} key=${path.join("/")} name=${name} path=${path} query=${query} /></main>`;
}

// The module of the view, once it is there.
function View({ name, path, query }) {
  const [found, set] = useState(null);
  useEffect(() => {
    const known = VIEWS.some(([one]) => one === name) || name in BELOW;
    if (!known) { set({ error: { message: `there is no view ${name}` } }); return; }
    import(`./views/${name}.js`).then((module) => set({ view: module.default }), (error) => set({ error }));
  }, []);
  if (found?.error) return html`<${Trouble} error=${found.error} />`;
  return found ? html`<div class="view"><${found.view} path=${path.slice(1)} query=${query} namespace=${query.ns ?? ""} seconds=${Number(query.t ?? 600)} /></div>` : html`<p class="waiting" role="status">Loading…</p>`;
}

// Which namespace and how much time is looked at, in every view.
function Scope({ query }) {
  const [namespaces, set] = useState([]);
  const { state } = useLive();
  useEffect(() => {
    get("/api/v1/namespaces").then((found) => set(found.items.map((one) => one.metadata.name)), () => set([]));
  }, [state?.revision]);
  const shown = query.ns && !namespaces.includes(query.ns) ? [...namespaces, query.ns] : namespaces;
  const times = query.t && !TIMES.some(([value]) => value === query.t) ? [...TIMES, [query.t, `${query.t} s`]] : TIMES;
  return html`<div class="scope"><label><span class="unseen">Namespace</span><select value=${query.ns ?? ""} onChange=${(event) => setQuery({ ns: event.target.value })}>
      <option value="">all namespaces</option>${shown.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
    <label><span class="unseen">Time</span><select value=${query.t ?? "600"} onChange=${(event) => setQuery({ t: event.target.value })}>
      ${times.map(([value, label]) => html`<option key=${value} value=${value}>last ${label}</option>`)}</select></label></div>`;
}

// Whether what is shown is what is.
function Pulse() {
  const { connected, state } = useLive();
  const [, redraw] = useState(0);
  useEffect(() => { const timer = setInterval(() => redraw((count) => count + 1), 5000); return () => clearInterval(timer); }, []);
  const told = state?.reported ? `, last report ${ago(state.reported)}` : "";
  return html`<span class="pulse ${connected ? "on" : "off"}" role="status" title=${connected ? `live${told}` : "no connection: what is shown may be old"}>
    <span aria-hidden="true">${connected ? "●" : "○"}</span> ${connected ? "live" : "not live"}</span>`;
}

// What people are to know of all figures.
function Notice() {
  const { state } = useLive();
  return state?.notice ? html`<p class="notice degraded" role="status"><span aria-hidden="true">‼ </span>${state.notice}.</p>` : null;
}

function Theme() {
  const [theme, set] = useState(localStorage.getItem("tulle.theme") ?? "");
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
    theme ? localStorage.setItem("tulle.theme", theme) : localStorage.removeItem("tulle.theme");
  }, [theme]);
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  return html`<button type="button" class="theme" aria-label=${dark ? "Light colours" : "Dark colours"} onClick=${() => set(dark ? "light" : "dark")}><span aria-hidden="true">${dark ? "☀" : "☾"}</span></button>`;
}

// `tulle dashboard` opens the page with the key to its own door. It is taken before anything else can change the place.
const key = /^#key=([\w-]+)$/.exec(location.hash)?.[1];
if (key) { session.token = key; history.replaceState(null, "", "#/overview"); }

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
