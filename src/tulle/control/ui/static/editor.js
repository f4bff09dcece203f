// Changes an object: the server judges what is typed (a dry run), shows what would change, and takes it only where nobody
// was quicker: the text carries the version that it was made of.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { kinds, path } from "./kinds.js";
import { Trouble } from "./parts.js";
import { Difference } from "./difference.js";

const PAUSE = 400; // ms after the last key until it is judged

// `at`: where the object is; without it a new one is made, where its text says.
export function Editor({ text, at = "", saved = null }) {
  const [value, setValue] = useState(text), [verdict, setVerdict] = useState(null), [step, setStep] = useState("edit");
  const start = useRef(text), work = useRef(null);
  const judge = async (real) => {
    work.current?.abort();
    work.current = new AbortController();
    const signal = work.current.signal;
    try {
      const place = at || (await target(value));
      const query = `fieldManager=tulle-page${real ? "" : "&dryRun=All"}`;
      const answer = await ask(at ? "PUT" : "POST", `${place}?${query}`, { body: value, type: "application/yaml", accept: "application/yaml", signal });
      if (!signal.aborted) setVerdict({ warnings: answer.warnings, error: null });
      return true;
    } catch (error) {
      if (error.name !== "AbortError") setVerdict({ warnings: [], error });
      return false;
    }
  };
  useEffect(() => {
    if (value === start.current) { setVerdict(null); return undefined; }
    const timer = setTimeout(() => judge(false), PAUSE);
    return () => clearTimeout(timer);
  }, [value]);
  const save = async () => {
    setStep("saving");
    const good = await judge(true);
    setStep("edit");
    if (good) { start.current = value; saved ? saved() : setVerdict({ warnings: [], error: null, done: true }); }
  };
  const changed = value !== start.current;
  return html`<div class="editor"><textarea aria-label="YAML" spellcheck="false" autocapitalize="off" value=${value} readonly=${step !== "edit"} onInput=${(event) => setValue(event.target.value)} aria-describedby="verdict" />
    <div id="verdict" aria-live="polite">${verdict?.error ? html`<${Trouble} error=${verdict.error} title="It would not be taken" />` : verdict?.done ? html`<p class="healthy">It is written.</p>` : verdict && changed ? html`<p class="healthy">It would be taken.</p>` : null}
      ${verdict?.warnings.map((warning) => html`<p class="caution">${warning}</p>`)}</div>
    ${step === "check" ? html`<${Difference} before=${at ? start.current : ""} after=${value} />` : null}
    <div class="actions">${step === "edit" ? html`<button type="button" class="main" disabled=${!changed || Boolean(verdict?.error)} onClick=${() => setStep("check")}>See what changes</button><button type="button" disabled=${!changed} onClick=${() => setValue(start.current)}>Undo</button>`
      : html`<button type="button" class="main" disabled=${step === "saving"} onClick=${save}>Save</button><button type="button" disabled=${step === "saving"} onClick=${() => setStep("edit")}>Go on editing</button>`}</div></div>`;
}

// Where a new object goes, by the first lines of its text.
async function target(text) {
  const word = (pattern) => pattern.exec(text)?.[1]?.replace(/^["']|["']$/g, "") ?? "";
  const version = word(/^apiVersion:\s*(\S+)/m), kind = word(/^kind:\s*(\S+)/m), namespace = word(/^ {2,4}namespace:\s*(\S+)/m);
  const [group, number] = version.includes("/") ? version.split("/") : ["", version];
  const found = (await kinds()).find((one) => one.kind === kind && one.group === group);
  if (!found) throw { status: 0, message: `found apiVersion ${version || "nothing"} and kind ${kind || "nothing"}; needed those of a kind that is served` };
  return path({ ...found, version: number }, namespace || "default");
}
