// What the page asks of the control plane, as whoever has logged in. Paths are the API server's own.

const KEY = "tulle.token";

export const session = {
  get token() { return sessionStorage.getItem(KEY) ?? ""; },
  set token(value) { value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY); },
};

// `causes`: the fields that are wrong, each a sentence.
export class ApiError extends Error {
  constructor(status, message, causes = []) {
    super(message);
    this.status = status;
    this.causes = causes;
  }
}

export function headers(more = {}) {
  return session.token ? { ...more, Authorization: `Bearer ${session.token}` } : more;
}

// The answer: `text`, and `warnings` that came with it. Raises an ApiError (status 0: nobody answered).
export async function ask(method, path, { body, type = "application/json", accept = "application/json", signal } = {}) {
  const options = { method, signal, headers: headers({ Accept: accept }), credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.headers["Content-Type"] = type;
    options.body = typeof body === "string" ? body : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the control plane does not answer");
  }
  const text = await response.text();
  if (!response.ok) throw refused(response.status, text);
  return { text, warnings: warnings(response.headers.get("Warning") ?? "") };
}

export async function get(path, query = {}, signal = undefined) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value != null));
  const { text } = await ask("GET", `${path}${asked.size ? `?${asked}` : ""}`, { signal });
  return JSON.parse(text);
}

export async function post(path, body) {
  return JSON.parse((await ask("POST", path, { body })).text);
}

// An answer of one JSON object a line, each told as it comes (`core/model/looks.py` Told), until it ends or `signal` does.
export async function follow(path, query, signal, tell) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value != null));
  let response;
  try {
    response = await fetch(`${path}?${asked}`, { signal, headers: headers(), credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the control plane does not answer");
  }
  if (!response.ok) throw refused(response.status, await response.text());
  const reader = response.body.getReader(), decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines.filter(Boolean)) {
      const told = JSON.parse(line);
      if (told.error) throw new ApiError(404, told.error);
      tell(told);
      if (told.ended) return;
    }
  }
}

function refused(status, text) {
  try {
    const said = JSON.parse(text);
    const causes = (said.details?.causes ?? []).map((one) => (one.field ? `${one.field}: ${one.message}` : one.message));
    return new ApiError(status, said.message ?? text, causes);
  } catch {
    return new ApiError(status, text.slice(0, 500) || `HTTP ${status}`);
  }
}

// `299 - "text"`, several separated by commas.
function warnings(header) {
  return [...header.matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g)].map((match) => match[1].replace(/\\(.)/g, "$1"));
}
