// The names and formats of the page.

import { el } from "./base.js";

/** Moves an article to the front: "Godfather, The (1972)" is filed under G. */
export function spoken(title) {
  return title.replace(/^(.+), (The|A|An|Der|Die|Das|Le|La|Les|L'|Il|El)( \([^()]*\))?$/u, (_, name, article, rest) =>
    `${article}${article.endsWith("'") ? "" : " "}${name}${rest || ""}`);
}

export const named = (item) => (item.title ? spoken(item.title) : item.item_id);

/** The name as it appears in a row, with a muted year. */
export function label(item) {
  const [, name, year] = named(item).match(/^(.*\S)\s*(\(\d{4}\))$/u) || [null, named(item), ""];
  return el("span", { class: "name" }, name, year ? el("span", { class: "year" }, ` ${year.slice(1, -1)}`) : null);
}

/** Formats a score in at most five characters. */
export function figure(score) {
  const size = Math.abs(score);
  const shown = size >= 100 ? String(Math.round(size)) : size.toFixed(size < 0.095 ? 3 : 2);
  return score < 0 ? `−${shown}` : shown;
}

/** A coloured square with the first letter of the item's first category; a path counts from its first step. */
export function swatch(item) {
  const kind = item.category?.[0]?.split(" > ")[0] ?? "";
  const square = el("span", { class: kind ? "swatch" : "swatch none", "aria-hidden": "true" }, kind.slice(0, 1).toUpperCase());
  if (kind) square.style.setProperty("--hue", String(hue(kind)));
  return square;
}

/** The same hue for the same text; texts that differ little have hues that differ much. */
function hue(words) {
  let mixed = 0;
  for (const letter of words) mixed = (mixed * 31 + letter.codePointAt(0)) % 9973;
  return (mixed * 137) % 360;
}

export const category = (item) => (item.category || []).slice(0, 3).join(" · ");

export const percent = (share) => `${share > 0 && share < 0.005 ? "<1" : Math.round(share * 100)} %`;

export const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

export const STRATEGIES = { "": "as in the segment", greedy: "greedy", beam: "beam", top_p: "top-p", temperature: "temperature" };

const SIGNALS = {
  path: "path", dense: "dense", item_cf: "item-CF", transitions: "transitions", walk: "two-step transitions", content: "content",
  texts: "texts", vectors: "vectors", repeat: "repeat purchase", repurchase: "often taken again", popularity: "popularity",
  trend: "trend", cold: "no events yet", attention: "attention", gradient: "gradient",
};

const signal = (name) => SIGNALS[name] ?? name;

/** The signals that ranked a list, in words. */
export const rankedBy = (names) => names.map(signal).join(", ");

/** Why an item is in the list, in a line; empty if there is nothing to say. */
export function because({ because: why }) {
  if (!why) return "";
  const { event } = why;
  if (event) return `${event.exact ? "because of" : "read most from"} ${named(event)} · ${signal(event.by)} ${percent(event.share)}`;
  const most = Object.entries(why.contributions).sort(([, a], [, b]) => b - a)[0];
  return most && most[1] > 0 ? `by ${signal(most[0])}` : "";
}

/** What each signal contributed to the score, the most important first. */
export function contributed({ because: why }) {
  const parts = Object.entries(why?.contributions ?? {}).sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  return parts.map(([name, value]) => `${signal(name)} ${value > 0 ? "+" : ""}${figure(value)}`).join(" · ");
}

export const RUNGS = [
  ["full", "full", "the full model with the requested decoding"],
  ["narrow", "narrow", "the model with a narrow search"],
  ["item_cf", "item-CF", "signals of the history, without the model"],
  ["popular", "popular", "the most popular items"],
];

/** What made an answer: an artefact without a network answers on the top rung too, by its scorer. */
export function made(answer) {
  if (answer.rung === "full" && answer.source !== "gpt4rec") return "the artefact's own scorer";
  return RUNGS.find(([rung]) => rung === answer.rung)?.[2] ?? answer.rung;
}

const REASONS = {
  forced: "an operator has forced the fallback",
  breaker_open: "the model failed too often and its breaker is open",
  latency_budget: "the model was late too often",
  error_budget: "the model failed too often",
  overload: "too many requests are waiting",
  deadline: "the model would exceed the budget",
  model_error: "the model failed",
  state_unavailable: "the stored history cannot be read",
  state_stale: "the history cannot be encoded in time",
  filter_not_ready: "the filter is new and not ready yet",
  model_evicted: "the model is being loaded into memory again",
  not_enough_items: "too few items are allowed",
};

export const reason = (name) => REASONS[name] || name;

/** What the bars beside the events of a history are, by the method that found them. */
export const SHARES = {
  attention_rollout: "the share of the model's attention, rolled out over its layers",
  attention: "the share of the attention of the model's last state",
  gradient: "how much the model's state moves with each event, as a share (gradient)",
};

const SLOTS_SHOWN = 3;

/** What the model read from the memory beside its window, in a sentence; empty if it has none to show. */
export function remembered({ memory }, items) {
  if (!memory) return "";
  const { events, sessions, slots, horizons } = memory;
  const said = [];
  if (sessions) said.push(inSession(events, sessions));
  if (slots) {
    const most = slots.map((share, at) => [share, at + 1]).sort(([a], [b]) => b - a).slice(0, SLOTS_SHOWN);
    said.push(`slots ${most.map(([share, slot]) => `${slot} (${percent(share)})`).join(", ")}`);
  }
  const best = events.indexOf(Math.max(...events));
  if (events[best] > 0) said.push(`of events most from ${named(items[best])}, number ${best + 1} (${percent(events[best])})`);
  if (horizons) said.push(`means over ${Object.entries(horizons).map(([name, share]) => `${name} ${percent(share)}`).join(", ")}`);
  return `Read from memory: ${said.join("; ")}.`;
}

/** The session of which most was read, by the numbers of its events in the history. */
function inSession(events, sessions) {
  const shares = new Map();
  sessions.forEach((session, at) => shares.set(session, (shares.get(session) ?? 0) + events[at]));
  const [session, share] = [...shares].sort(([, a], [, b]) => b - a)[0];
  const first = sessions.indexOf(session) + 1;
  const last = sessions.lastIndexOf(session) + 1;
  return `the session of ${first === last ? `event ${first}` : `events ${first} to ${last}`} most (${percent(share)})`;
}
