// Who has come without a certificate, and not through `tulle dashboard`: shows a token.

import { html, useState } from "./vendor/preact.js";
import { get, session } from "./api.js";

export function Login({ entered }) {
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    session.token = token.trim();
    try {
      await get("/tulle/v1/status");
      entered();
    } catch (error) {
      session.token = "";
      setWrong(error.status === 401 ? "This token is not known, or it has ended." : error.message);
    }
  };
  return html`<main class="alone"><form class="login panel" onSubmit=${submit}>
    <h1><img src="icon.svg" alt="" width="28" height="28" /> tulle</h1>
    <label for="token">Token</label>
    <input id="token" type="password" autocomplete="off" required value=${token} onInput=${(event) => setToken(event.target.value)} aria-describedby="hint" />
    ${wrong ? html`<p class="failing" role="alert">${wrong}</p>` : null}
    <button type="submit" class="main">Log in</button>
    <p id="hint" class="faint">An administrator makes one with <code>tulle apitoken create --user NAME --group tulle:viewers</code>. It is kept until this tab is closed. Who has a kubeconfig needs none: <code>tulle dashboard</code>.</p>
  </form></main>`;
}
