// The playground: from a history and a few choices to a list, updated with every click.

import { Refusal, ask, chosen, el, here, keeper, offerSpaces, text } from "./base.js";
import { Controls } from "./playground-controls.js";
import { History } from "./playground-history.js";
import { List, Similar } from "./playground-list.js";
import { Search } from "./playground-search.js";
import { EVENTS_MAX, beside, body, curl, fresh, fromFragment, rivals, seconds, toFragment } from "./playground-state.js";
import { RUNGS, SHARES, STRATEGIES, made, ms, named, percent, rankedBy, reason, remembered } from "./playground-text.js";

const PAUSE_MS = 70; // a dragged slider sends one request, not one for each step
const FIRST_SAMPLE = 4;
const NEAREST = 12;

const at = (id) => document.getElementById(id);
const key = keeper("api-key");
const items = new Map();
let about, state, controls, history, list, second, search;
let request = null;
let timer = null;

const secret = () => key.get();
const get = (path, signal) => ask("GET", path, { secret: secret(), signal });
const post = (path, given, signal) => ask("POST", path, { secret: secret(), body: given, signal });

function learn(found) {
  for (const item of found) items.set(item.item_id, { ...items.get(item.item_id), ...item });
  return found;
}

/** Where the API of the chosen space is. */
const apiHere = () => (chosen.get() ? new URL(`spaces/${chosen.get()}/`, here()) : here());
const known = (id) => items.get(id) || { item_id: id, title: null, category: [] };

function say(message) {
  text(at("said"), message);
}

// -- the request

function change(part, said) {
  state = { ...state, ...part, ...("history" in part && { at: seconds() }) };
  window.history.replaceState(null, "", `#${toFragment(state, about)}`);
  draw();
  later();
  if (said) say(said);
}

function take(item) {
  learn([item]);
  if (state.history.length >= EVENTS_MAX) return say(`a history here has at most ${EVENTS_MAX} events`);
  return change({ history: [...state.history, item.item_id] }, `${named(item)} added to the history`);
}

function draw() {
  controls.show(state);
  history.show(state.history);
  const nobody = !state.history.length;
  at("empty").hidden = !nobody;
  at("clear").disabled = nobody;
  if (nobody) {
    text(at("why"), "");
    text(at("memory"), "");
  }
  at("history-title").textContent = nobody ? "History" : `History of ${state.history.length}`;
}

async function surprise(seed) {
  const found = learn((await get(`playground/sample?seed=${seed}`)).items);
  change({ history: found.map((item) => item.item_id) }, `a history of ${found.length}`);
}

// -- the answer

function later() {
  document.body.dataset.asking = "true";
  request?.abort();
  clearTimeout(timer);
  timer = setTimeout(refresh, PAUSE_MS);
}

async function refresh() {
  request?.abort();
  request = new AbortController();
  const { signal } = request;
  const slow = setTimeout(() => at("next").setAttribute("aria-busy", "true"), 250);
  try {
    const given = { request: body(state, about), beside: beside(state) };
    const { lists: [answer, rival], items: named, why } = await post("playground/lists", given, signal);
    const nameless = state.history.some((id) => !items.get(id)?.category);
    learn(named);
    if (nameless) history.show(state.history, true);
    show(answer, rival);
    weigh(answer, about.explains ? why : null);
    at("notice").hidden = true;
  } catch (error) {
    trouble(error);
  } finally {
    clearTimeout(slow);
    if (!signal.aborted) {
      at("next").removeAttribute("aria-busy");
      delete document.body.dataset.asking;
    }
  }
}

function show(answer, rival = null) {
  at("how").hidden = false;
  at("ladder").replaceChildren(...RUNGS.map(([rung, label, what]) =>
    el("li", { title: what, "aria-current": rung === answer.rung ? "true" : null }, label)));
  at("ladder").dataset.rung = answer.rung;
  const share = Math.min(1, answer.latency_ms / answer.budget_ms);
  at("latency-bar").style.width = `${Math.max(1, share * 100)}%`;
  at("latency-bar").classList.toggle("late", answer.latency_ms > answer.budget_ms);
  text(at("latency"), `${ms(answer.latency_ms)} of ${ms(answer.budget_ms)}`);
  at("facts").replaceChildren(...factsOf(answer));
  compare(answer, rival);
  list.show(answer, known, rival);
  const first = answer.items[0];
  say(`${answer.items.length} items by ${answer.source} in ${ms(answer.latency_ms)}${first ? `, first ${named(known(first.item_id))}` : ""}`);
  if (!answer.items.length) at("items").replaceChildren(el("li", { class: "quiet none" }, "No allowed items are left."));
}

/** How a list was made. Of a list that the model did not make, nothing of the model is said. */
function factsOf(answer, chosen = false) {
  const byModel = answer.source === "gpt4rec";
  const facts = [el("span", { class: answer.degraded && !chosen ? "tag warn" : "tag good" }, answer.source)];
  facts.push(el("span", {}, `segment ${answer.segment}`));
  if (byModel && answer.strategy) facts.push(el("span", {}, STRATEGIES[answer.strategy]));
  if (!chosen) facts.push(el("span", {}, made(answer)));
  if (answer.scorers?.length) facts.push(el("span", { class: "scorers" }, `ranked by ${rankedBy(answer.scorers)}`));
  if (answer.reason && !chosen) facts.push(el("span", { class: "because" }, `because ${reason(answer.reason)}`));
  for (const warning of answer.warnings ?? []) facts.push(el("span", { class: "because" }, warning));
  return facts;
}

/** Shows the second list, or none. */
function compare(answer, rival) {
  const shown = Boolean(rival);
  at("rival").hidden = !shown;
  document.body.classList.toggle("comparing", shown);
  if (!rival) {
    at("rival-items").replaceChildren();
    return;
  }
  const [, label] = rivals(about).find(([value]) => value === state.beside) ?? ["", ""];
  const listed = new Set(answer.items.map((item) => item.item_id));
  const common = rival.items.filter((item) => listed.has(item.item_id)).length;
  text(at("rival-title"), `${label}: ${common} of ${rival.items.length} items in both lists`);
  at("rival-facts").replaceChildren(...factsOf(rival, !state.beside.startsWith("segment ") && state.beside !== "rules"));
  second.show(rival, known, answer);
}

/** Shows the attention of each event under the history, if it is what made the list. */
function weigh(answer, why) {
  const byModel = answer.source === "gpt4rec";
  history.weigh(byModel && why ? why.weights : null);
  if (!state.history.length) text(at("why"), "");
  else if (!byModel) text(at("why"), `No attention to show: the list is ranked by ${rankedBy(answer.scorers)}.`);
  else if (!about.explains) text(at("why"), "This artefact cannot explain its lists; exporting the model again adds the explainer.");
  else if (!why) text(at("why"), "The explanation is not available right now.");
  else {
    const before = why.earlier ? `, all events before the bars ${percent(why.earlier)}` : "";
    text(at("why"), `Bars: ${SHARES[why.method] ?? SHARES.attention}; the start of the history has ${percent(why.start)}${before}.`);
  }
  text(at("memory"), byModel && why ? remembered(why, state.history.map(known)) : "");
}

function trouble(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Refusal && error.status === 401) {
    askForKey(secret() ? "This key is not known." : "");
    return;
  }
  if (chosen.get() && error instanceof Refusal && [403, 404].includes(error.status) && !state) {
    // The space that was chosen before is gone, or this key does not open it.
    chosen.set("");
    begin();
    return;
  }
  clearTimeout(timer);
  if (error.status === 429) {
    // The last list stays, and is asked for again as soon as the service allows.
    const waitS = error.waitS ?? 1;
    text(at("notice").querySelector("p"), `Too many requests: what you see is the last list. The next is asked for in ${waitS} s.`);
    at("notice").hidden = false;
    timer = setTimeout(refresh, waitS * 1000);
    return;
  }
  const id = error.problem?.request_id ? ` (request ${error.problem.request_id})` : "";
  text(at("notice").querySelector("p"), `${error.message}${id}`);
  at("notice").hidden = false;
}

// -- the key

function askForKey(fault) {
  text(at("key-fault"), fault);
  if (!at("key-dialog").open) at("key-dialog").showModal();
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(at("key").value.trim());
  chosen.set("");
  at("key").value = "";
  at("key-dialog").close();
  retry();
});

function retry() {
  at("notice").hidden = true;
  if (state) later();
  else begin();
}

// -- the page

async function copy(button, what) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(what);
    button.textContent = "Copied";
    say("copied");
  } catch {
    button.textContent = "Not allowed here";
  }
  setTimeout(() => {
    button.textContent = said;
  }, 1500);
}

function wire() {
  const similar = new Similar(at("similar"),
    async (id, signal) => {
      const near = (await get(`items/${encodeURIComponent(id)}/similar?k=${NEAREST}`, signal)).items;
      return learn(near.map(({ item_id, title }) => ({ item_id, title })));
    }, take, (ids) => history.mark(ids));
  list = new List(at("items"), take, similar);
  second = new List(at("rival-items"), take, similar);
  history = new History(at("events"), (ids, said) => change({ history: ids }, said), known);
  controls = new Controls(about, (part) => change(part));
  search = new Search(at("search"), at("found"), async (words, signal) =>
    learn((await get(`playground/items?${new URLSearchParams({ q: words, limit: "10" })}`, signal)).items), take);
  const guarded = (work) => () => work().catch(trouble);
  at("surprise").addEventListener("click", guarded(() => surprise(Math.floor(Math.random() * 1_000_000))));
  at("clear").addEventListener("click", () => {
    change({ history: [] }, "the history is empty");
    search.input.focus();
  });
  at("reset").addEventListener("click", () => change({ ...fresh(about), history: state.history }, "all choices are reset"));
  at("link").addEventListener("click", () => copy(at("link"), location.href));
  at("curl").addEventListener("click", () =>
    copy(at("curl"), curl(body(state, about), apiHere(), Boolean(secret()))));
  addEventListener("hashchange", guarded(restore));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    search.input.focus();
  });
}

/** Restores the state from the address, or starts with a sample. */
async function restore() {
  const found = fromFragment(location.hash, about);
  state = found || fresh(about);
  if (!found) {
    await surprise(FIRST_SAMPLE);
    return;
  }
  draw();
  later();
}

async function begin() {
  try {
    about = await get("playground/about");
    const from = about.trained_on;
    text(at("model"), [about.model_version, `${about.items.toLocaleString("en")} items`,
      from?.events ? `trained on ${from.events.toLocaleString("en")} events` : null].filter(Boolean).join(" · "));
    at("links").replaceChildren(...Object.entries(about.links).map(([name, href]) => el("a", { href }, name)));
    offerSpaces(at("space"), about);
    if (!controls) wire();
    const popular = learn((await get("playground/items?limit=8")).items);
    at("starters").replaceChildren(...popular.map((item) =>
      el("button", { type: "button", class: "chip", onclick: () => take(item) }, named(item))));
    await restore();
  } catch (error) {
    trouble(error);
  }
}

at("again").addEventListener("click", retry);
begin();
