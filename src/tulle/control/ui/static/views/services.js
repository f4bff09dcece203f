// Every service, to find one.

import { html, useState } from "../vendor/preact.js";
import { useData } from "../hooks.js";
import { Command, Filter, Panel, Table, Wait } from "../parts.js";
import { COLUMNS, services } from "./overview.js";

export default function Services({ namespace, seconds }) {
  const [filter, setFilter] = useState("");
  const found = useData((signal) => services(namespace, seconds, signal), [namespace, seconds]);
  const rows = (found.data?.rows ?? []).filter((row) => row.id.includes(filter));
  return html`<div><h1>Services</h1><${Panel} title="Services" more=${html`<${Filter} value=${filter} onInput=${setFilter} />`}><${Wait} of=${found}><${Table} caption="Services" columns=${COLUMNS} rows=${rows} first=${["name", false]} id=${(row) => row.id} /><//>
    <${Command} line=${`tulle stat ${namespace ? `-n ${namespace}` : "-A"} -t ${seconds}s`} /><//></div>`;
}
