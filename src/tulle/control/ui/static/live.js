// The stream of events that says when to look again. One for the page, however many views listen.

import { headers } from "./api.js";

const PATH = "/tulle/v1/telemetry/live?watch=true";
const listeners = new Set();

export const live = { state: null, connected: false };
let stopped = null;

export function onLive(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell() {
  for (const listener of [...listeners]) listener(live);
}

export function start() {
  stop();
  const controller = new AbortController();
  stopped = controller;
  run(controller.signal);
}

export function stop() {
  stopped?.abort();
  stopped = null;
}

async function run(signal) {
  let pause = 1000;
  while (!signal.aborted) {
    try {
      const answer = await fetch(PATH, { signal, headers: headers(), cache: "no-store" });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      live.connected = true;
      pause = 1000;
      tell();
      await read(answer.body.getReader());
    } catch { /* it is tried again, and the page says that it is not live */ }
    if (signal.aborted) return;
    live.connected = false;
    tell();
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(15000, pause * 2);
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = events.pop().slice(-65536);
    const last = events.filter((event) => event.startsWith("data: ")).at(-1);
    if (last) {
      live.state = JSON.parse(last.slice(6));
      tell();
    }
  }
}
