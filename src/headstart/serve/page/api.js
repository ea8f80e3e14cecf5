// Requests to the server that the page came from. The token, where the server wants one, goes in a header, never in an
// address: addresses are written to logs.

import { make } from "./dom.js";

const KEY = "headstart-token";
const TRIES = 4;
let asking = null; // the promise of the one dialog that asks for the token

/** A request that failed: `status` of HTTP (0: no connection), `body` the JSON that was answered, or null. */
export class RequestError extends Error {
  constructor(status, message, body = null) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** Take a token from the address, #token=..., and remove it there. */
export function takeToken() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search);
}

/** The headers that carry the token. */
export function tokenHeaders() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** The answer to a request as JSON; raises RequestError. A busy server is asked again, a missing token asked for. */
export async function request(path, options = {}) {
  return (await respond(path, options)).json();
}

/** The answer to a request as a Blob; raises RequestError. */
export async function requestBlob(path, options = {}) {
  return (await respond(path, options)).blob();
}

async function respond(path, options) {
  for (let attempt = 1; ; attempt++) {
    const sent = tokenHeaders();
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...sent } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new RequestError(0, "The server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      if (sent.Authorization === tokenHeaders().Authorization) await askForToken(Boolean(sent.Authorization));
    } else if (response.status !== 503 || attempt >= TRIES || options.once) {
      const body = await response.json().catch(() => null);
      throw new RequestError(
        response.status,
        body?.error ?? `The server answered with status ${response.status}.`,
        body,
      );
    } else {
      await wait(Math.min(5, Number(response.headers.get("Retry-After")) || 1));
    }
  }
}

export const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/** Ask for the token, once however many requests wait for it. */
function askForToken(wasWrong) {
  asking ??= new Promise((resolve) => {
    const field = make("input", { type: "password", name: "token", required: true, autocomplete: "off", id: "token" });
    const form = make(
      "form",
      { method: "dialog" },
      make("h2", { id: "h-token" }, "This server wants a token"),
      make(
        "p",
        {},
        wasWrong ? "The token was not accepted. " : "",
        "It is part of the address that was printed at the start, which can be pasted here whole; or it was chosen by " +
          "who started the server, by the option --token or the variable HEADSTART_TOKEN.",
      ),
      make("label", { htmlFor: "token" }, "Token "),
      field,
      make("div", { className: "row" }, make("button", { className: "primary" }, "Continue")),
    );
    const dialog = make("dialog", { "aria-labelledby": "h-token" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // without it nothing works
    form.addEventListener("submit", () => {
      sessionStorage.setItem(KEY, field.value.trim().replace(/^.*#token=/, ""));
      dialog.remove();
      asking = null;
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

/**
 * A dialog with a message and what can be done; resolves to the text of the button that was chosen, "" for none. The
 * key Enter in a field chooses the first.
 */
export function ask(title, lines, choices) {
  return new Promise((resolve) => {
    const buttons = choices.map((value, i) =>
      make("button", { value, className: i ? "" : "primary", formNoValidate: i > 0 }, value),
    );
    const form = make(
      "form",
      { method: "dialog" },
      make("h2", { id: "h-ask" }, title),
      ...lines.map((line) => (line instanceof Node ? line : make("p", {}, line))),
      make("div", { className: "row" }, ...buttons),
    );
    const dialog = make("dialog", { "aria-labelledby": "h-ask" }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
