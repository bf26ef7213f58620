// What the pages share: building elements, asking the service, keeping a secret for this tab only.

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

/** Sets text only where it differs, so that nothing is redrawn or read out again for nothing. */
export function text(node, value) {
  const shown = String(value);
  if (node.textContent !== shown) node.textContent = shown;
}

/** The service said no, or nothing: `status` 0 where there was no answer. */
export class Refusal extends Error {
  constructor(status, detail, problem = {}) {
    super(detail);
    this.status = status;
    this.problem = problem;
  }
}

/** The refusal that a response tells of. */
export async function refusal(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // not a problem document: the status has to do
  }
  const faults = (problem.errors || []).map((fault) => `${fault.loc.join(".")}: ${fault.message}`);
  const detail = faults.length ? faults.join("; ") : problem.detail || `the service answered ${response.status}`;
  return new Refusal(response.status, detail, problem);
}

/** JSON of the service. `secret` goes into a header, never into the address. Throws Refusal. */
export async function ask(method, path, { body, secret, signal } = {}) {
  const headers = {};
  if (secret) headers.Authorization = `Bearer ${secret}`;
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

/** A secret kept for this tab, until it is closed. */
export function keeper(name) {
  const key = `gpt4rec.${name}`;
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
        // storage is off: it is asked for again
      }
    },
  };
}

/** Whether the reader asked for less movement. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
