// Shared by the pages: elements, calls to the service, a secret kept for this tab only.

/** An element with properties, attributes (names with a dash, or role) and children; strings become text, never HTML. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || !(name in made)) made.setAttribute(name, value === true ? "" : value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Sets the text only if it differs, so that nothing is redrawn or read out needlessly. */
export function text(node, value) {
  const shown = String(value);
  if (node.textContent !== shown) node.textContent = shown;
}

/** An error of the service; `status` is 0 if there was no answer, `waitS` the seconds of Retry-After, null without one. */
export class Refusal extends Error {
  constructor(status, detail, problem = {}, waitS = null) {
    super(detail);
    this.status = status;
    this.problem = problem;
    this.waitS = waitS;
  }
}

/** Returns the Refusal of a response. */
export async function refusal(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // not a problem document: only the status is known
  }
  const faults = (problem.errors || []).map((fault) => `${fault.loc.join(".")}: ${fault.message}`);
  const detail = faults.length ? faults.join("; ") : problem.detail || `the service answered ${response.status}`;
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return new Refusal(response.status, detail, problem, Number.isFinite(wait) ? Math.max(1, wait) : null);
}

/** The headers of a request: the secret, never in the address, and the space that was chosen for this tab. */
export function headersOf(secret) {
  const headers = {};
  if (secret) headers.Authorization = `Bearer ${secret}`;
  const space = chosen.get();
  if (space) headers["X-GPT4Rec-Space"] = space;
  return headers;
}

/** Returns JSON of the service. Throws Refusal. */
export async function ask(method, path, { body, secret, signal } = {}) {
  const headers = headersOf(secret);
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "the service does not answer");
  }
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/** Where the service is: all its addresses are relative to this one, so that a proxy may add a path prefix. */
export const here = () => new URL(".", location.href);

/** A secret kept for this tab, until it is closed. Another service of the same origin, below another path, has its own. */
export function keeper(name) {
  const below = here().pathname;
  const key = `gpt4rec.${name}${below === "/" ? "" : `@${below}`}`;
  return {
    get: () => {
      try {
        return sessionStorage.getItem(key) || "";
      } catch {
        return "";
      }
    },
    set: (secret) => {
      try {
        if (secret) sessionStorage.setItem(key, secret);
        else sessionStorage.removeItem(key);
      } catch {
        // storage is off: the page will ask for it again
      }
    },
  };
}

/** The space that was chosen for this tab; "" where nobody chose one. */
export const chosen = keeper("space");

/** Offers the spaces in a select, if there are several; a choice loads the page again. */
export function offerSpaces(select, { space, spaces }) {
  select.parentNode.hidden = spaces.length < 2;
  select.replaceChildren(...spaces.map((name) => el("option", { value: name, selected: name === space }, name)));
  select.onchange = () => {
    chosen.set(select.value);
    location.reload();
  };
}

/** Whether the reader prefers less motion. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
