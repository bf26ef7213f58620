// The state of the page: its defaults, its form in the address, and its request.

export const SECONDS = { second: 1, minute: 60, day: 86_400, week: 604_800 };
export const SPACINGS = [
  ["second", "a second"],
  ["minute", "a minute"],
  ["day", "a day"],
  ["week", "a week"],
];
export const EVENTS_MAX = 200;
// A session without events: a new visitor. Each tab has its own id, so that no one else can give it a history.
const NOBODY = `playground-${[...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;

/** The time in epoch seconds. */
export function seconds() {
  return Math.floor(Date.now() / 1000);
}

/** The defaults: the service decides. `at` is when the last event happens: the same address means the same events. */
export function fresh(about) {
  return {
    history: [],
    at: seconds(),
    type: about.event_types[0],
    segment: "",
    strategy: "",
    beam: 5,
    topP: 0.9,
    temperature: 1.2,
    seed: 7,
    k: 10,
    budget: about.budget_ms,
    spacing: "minute",
    categories: [],
    scene: "",
    seen: "",
    rules: "",
    beside: "",
    features: {},
    codes: {},
  };
}

const PLAIN = [
  ["type", "type", String], ["segment", "segment", String], ["strategy", "strategy", String], ["beam", "beam", Number],
  ["topP", "p", Number], ["temperature", "t", Number], ["seed", "seed", Number], ["k", "k", Number],
  ["budget", "budget", Number], ["spacing", "spacing", String], ["scene", "scene", String], ["seen", "seen", String],
  ["rules", "rules", String], ["beside", "beside", String],
];

/** Returns the fragment (the part behind #) that restores this state. Defaults are left out. */
export function toFragment(state, about) {
  const usual = fresh(about);
  const parts = new URLSearchParams();
  for (const item of state.history) parts.append("h", item);
  if (state.history.length) parts.set("at", state.at);
  for (const [field, name] of PLAIN) {
    if (state[field] !== usual[field]) parts.set(name, state[field]);
  }
  for (const category of state.categories) parts.append("only", category);
  for (const [name, value] of Object.entries(state.features)) parts.append("who", `${name}=${value}`);
  for (const [name, value] of Object.entries(state.codes)) parts.append("code", `${name}=${value}`);
  return parts.toString();
}

/** Returns the state of a fragment, null if it is empty. Missing and bad values get their defaults. */
export function fromFragment(fragment, about) {
  const parts = new URLSearchParams(fragment.replace(/^#/, ""));
  if (![...parts.keys()].length) return null;
  const state = fresh(about);
  state.history = parts.getAll("h").slice(0, EVENTS_MAX);
  for (const [field, name, kind] of PLAIN) {
    const value = parts.has(name) ? kind(parts.get(name)) : state[field];
    if (kind !== Number || Number.isFinite(value)) state[field] = value;
  }
  const at = Number(parts.get("at"));
  if (Number.isInteger(at) && at > 0 && at < state.at) state.at = at;
  const among = (value, known, otherwise) => (known.includes(value) ? value : otherwise);
  const within = (value, low, high) => Math.min(high, Math.max(low, value));
  state.segment = among(state.segment, about.segments.map((segment) => segment.name), "");
  state.strategy = among(state.strategy, ["beam", "top_p", "temperature", "greedy"], "");
  state.spacing = among(state.spacing, Object.keys(SECONDS), "minute");
  state.type = among(state.type, about.event_types, about.event_types[0]);
  state.scene = among(state.scene, about.scenes, "");
  state.seen = among(state.seen, ["out", "in"], "");
  state.rules = among(state.rules, ["off"], "");
  state.beside = among(state.beside, rivals(about).map(([value]) => value), "");
  state.k = Math.round(within(state.k, 1, 40));
  state.beam = Math.round(within(state.beam, 1, 16));
  state.topP = within(state.topP, 0.05, 1);
  state.temperature = within(state.temperature, 0.1, 3);
  state.seed = Math.round(within(state.seed, 0, Number.MAX_SAFE_INTEGER));
  state.budget = within(state.budget, 1, about.budget_max_ms);
  const categories = about.categories.map((category) => category.name);
  state.categories = parts.getAll("only").filter((name) => categories.includes(name)).slice(0, 64);
  const known = (field, offered) => {
    const pairs = parts.getAll(field).map((pair) => [pair.split("=", 1)[0], pair.slice(pair.indexOf("=") + 1)]);
    return Object.fromEntries(pairs.filter(([slot, value]) => Object.hasOwn(offered, slot) && offered[slot].includes(value)));
  };
  state.features = known("who", about.features);
  state.codes = known("code", about.codes);
  return state;
}

/** The history as inline events; the last one happens at `state.at`. */
export function events(state) {
  const step = SECONDS[state.spacing];
  const { length } = state.history;
  return state.history.map((item, place) => ({
    item_id: item, type: state.type, timestamp: state.at - (length - 1 - place) * step,
  }));
}

/** The parameters of the strategy. */
export function decoding(state) {
  const { strategy } = state;
  if (strategy === "beam") return { strategy, beam_width: state.beam };
  if (strategy === "top_p") return { strategy, top_p: state.topP };
  if (strategy === "temperature") return { strategy, temperature: state.temperature };
  return { strategy };
}

/** What a list can be compared with: [value, label]. */
export function rivals(about) {
  return [
    ["", "nothing"], ["item_cf", "item-CF, without the model"], ["popular", "popular items"],
    ...(about.rules.length ? [["rules", "rules switched"]] : []),
    ...about.segments.map(({ name }) => [`segment ${name}`, `segment ${name}`]),
  ];
}

/** What is different for the second list; null for one list alone. */
export function beside(state) {
  if (!state.beside) return null;
  if (state.beside === "rules") return { policy_rules: state.rules === "off" };
  if (state.beside.startsWith("segment ")) return { segment: state.beside.slice("segment ".length) };
  return { rung: state.beside };
}

/** The body of `POST /recommend`. */
export function body(state, about) {
  const request = state.history.length ? { events: events(state) } : { session_id: NOBODY };
  request.k = state.k;
  request.explain = true;
  request.seed = state.seed;
  if (state.segment) request.segment = state.segment;
  if (state.strategy) request.decoding = decoding(state);
  if (state.categories.length) request.filter = { category: state.categories };
  if (state.scene) request.scene = state.scene;
  if (state.seen) request.exclude_seen = state.seen === "out";
  if (state.rules) request.policy_rules = false;
  if (Object.keys(state.features).length) request.features = state.features;
  if (Object.keys(state.codes).length) request.context = state.codes;
  if (state.budget !== about.budget_ms) request.budget_ms = state.budget;
  return request;
}

/** The same request for a shell; `service` is the address of the service, with its last slash. The key is a variable, not its value. */
export function curl(request, service, needsKey) {
  const json = JSON.stringify(request).replaceAll("'", "'\\''");
  const key = needsKey ? " \\\n  -H \"X-API-Key: $GPT4REC_API_KEY\"" : "";
  return `curl -s ${service}recommend \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${json}'`;
}
