// Small things that several pages show: an object by its name, a share as a bar.

import { html } from "./vendor/preact.js";
import { link } from "./hooks.js";
import { percent } from "./format.js";

// `VirtualService default/reviews` as a link to it.
export function Named({ text }) {
  const [kind, place = ""] = text.split(" ");
  const [namespace, name] = place.includes("/") ? place.split("/") : ["-", place];
  return name ? html`<a href=${link(["object", kind, namespace, name])}>${text}</a>` : html`${text}`;
}

export function Share({ of }) {
  return html`<span class="share" aria-hidden="true"><svg width="90" height="8"><rect width=${90 * of} height="8" /></svg></span>${percent(of, 0)}`;
}
