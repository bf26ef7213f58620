// How things are called on the page.

import { el } from "/assets/base.js";

/** A title as it is spoken: "Godfather, The (1972)" is filed under G. */
export function spoken(title) {
  return title.replace(/^(.+), (The|A|An|Der|Die|Das|Le|La|Les|L'|Il|El)( \([^()]*\))?$/u, (_, name, article, rest) =>
    `${article}${article.endsWith("'") ? "" : " "}${name}${rest || ""}`);
}

export const named = (item) => (item.title ? spoken(item.title) : item.item_id);

/** The name as it stands in a row, its year set back. */
export function label(item) {
  const [, name, year] = named(item).match(/^(.*\S)\s*(\(\d{4}\))$/u) || [null, named(item), ""];
  return el("span", { class: "name" }, name, year ? el("span", { class: "year" }, ` ${year.slice(1, -1)}`) : null);
}

/** A score in at most five signs. */
export function figure(score) {
  const size = Math.abs(score);
  const shown = size >= 100 ? String(Math.round(size)) : size.toFixed(size < 0.095 ? 3 : 2);
  return score < 0 ? `−${shown}` : shown;
}

export const category = (item) => (item.category || []).slice(0, 3).join(" · ");

export const percent = (share) => `${share > 0 && share < 0.005 ? "<1" : Math.round(share * 100)} %`;

export const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

export const STRATEGIES = { "": "as the segment says", greedy: "greedy", beam: "beam", top_p: "top-p", temperature: "temperature" };

export const RUNGS = [
  ["full", "full", "the model, searched as asked"],
  ["narrow", "narrow", "the model, searched narrowly"],
  ["item_cf", "item-CF", "neighbours of the history, without the model"],
  ["popular", "popular", "what everybody likes"],
];

const REASONS = {
  forced: "an operator has forced the fallback",
  breaker_open: "the model fails too often, so its breaker is open",
  latency_budget: "the model has been late too often",
  error_budget: "the model has failed too often",
  overload: "there is more to do than fits the budget",
  deadline: "the model does not fit the budget",
  model_error: "the model failed",
  state_unavailable: "the stored history cannot be read",
  state_stale: "the history cannot be encoded in time",
  not_enough_items: "no more items are allowed",
};

export const reason = (name) => REASONS[name] || name;
