// The panel of what lists and traffic are like: figures of this hour, and how far they are from the model's baseline.
import { el, text } from "./base.js";
import { share } from "./console-words.js";

const $ = (id) => document.getElementById(id);
const BASELINES = { ok: ["good", "has a baseline"], missing: ["", "no baseline"], unreadable: ["bad", "baseline unreadable"] };
const NOTES = {
  missing: "The artefact does not say what its traffic was like, so nothing is known of drift. Export the model again.",
  unreadable: "The log says why the baseline of the artefact cannot be read. Export the model again.",
};
const NAMES = {
  list_categories: "Lists: category", list_popularity: "Lists: popularity", list_repeats: "Lists: seen before", list_scores: "Lists: score",
  visits: "Users: events so far", event_types: "Events: type", event_categories: "Events: category", event_popularity: "Events: popularity",
};
const FIGURES = [
  ["coverage", "of the catalogue listed", share], ["tail_share", "tail", share], ["repeats", "seen before", share],
  ["new_users", "new users", share], ["unknown_items", "events on unknown items", share],
  ["score_auc", "of the score pairs in the order of what users took", share], ["score_calibration", "calibration error", share],
  ["entropy", "bits of entropy", (value) => value.toFixed(1)], ["novelty", "bits of novelty", (value) => value.toFixed(1)],
];

export const drifted = (watch) => Object.entries(watch.over || {}).flatMap(([window, found]) => found.map((one) => [NAMES[one.statistic] || one.statistic, window]));

/** Shows the figures of a snapshot; nothing if the service does not watch. */
export function showWatch(watch) {
  $("watch-panel").hidden = !watch.baseline;
  if (!watch.baseline) return;
  const [level, says] = BASELINES[watch.baseline];
  $("watch-state").className = `tag ${level}`;
  text($("watch-state"), says);
  const figures = FIGURES.filter(([name]) => name in watch.figures).map(([name, words, format]) => `${format(watch.figures[name])} ${words}`);
  text($("watch-figures"), [`Lists: ${watch.lists}, events: ${watch.events}`, ...figures].join(" · "));
  $("watch-table").hidden = !watch.drift.length;
  const rows = watch.drift.map((one) => [
    NAMES[one.statistic] || one.statistic, one.divergence.toFixed(3), one.threshold.toFixed(3),
    `${one.largest}: ${share(one.was)} → ${share(one.now)}`,
  ]);
  const now = JSON.stringify(rows);
  if ($("watch").dataset.shown !== now) {
    $("watch").dataset.shown = now;
    $("watch").replaceChildren(...rows.map((cells, place) => el("tr", {},
      el("th", { scope: "row" }, cells[0]),
      el("td", { class: `number ${watch.drift[place].drifted ? "hot" : ""}` }, cells[1]),
      el("td", { class: "number" }, cells[2]),
      el("td", {}, cells[3]))));
  }
  const over = drifted(watch).map(([name, window]) => `${name} (last ${window})`);
  text($("watch-note"), over.length ? `Drifted: ${over.join(", ")}.` : NOTES[watch.baseline] || (watch.drift.length
    ? "Divergence from the model's baseline, in bits. Above the threshold it is more than chance."
    : "Too few users in this hour to say whether it is like the model's baseline."));
}
