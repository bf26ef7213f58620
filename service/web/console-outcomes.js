// The panel "What came of the lists": a table for each kind of group, as the sink counts them.
import { text } from "./base.js";
import { share, when } from "./console-words.js";

const $ = (id) => document.getElementById(id);
const figure = (value) => (value === null || value === undefined ? "–" : value >= 100 ? value.toFixed(0) : value.toFixed(1));

/** Shows the answer of /ops/outcomes; `fill` fills the rows of a table. While there are no figures, the last ones stay. */
export class Outcomes {
  #shown = null;
  #shownAt = null;
  #fault = null;
  #dimension = "model";

  constructor(fill) {
    for (const button of document.querySelectorAll("[data-outcomes]")) {
      button.addEventListener("click", () => {
        this.#dimension = button.dataset.outcomes;
        for (const other of document.querySelectorAll("[data-outcomes]")) other.setAttribute("aria-pressed", String(other === button));
        this.#draw(fill);
      });
    }
    this.show = (outcomes) => {
      this.#fault = outcomes.fault;
      if (!this.#fault) {
        this.#shown = outcomes;
        this.#shownAt = new Date().toISOString();
      }
      this.#draw(fill);
    };
  }

  #draw(fill) {
    const groups = this.#shown?.groups ?? {};
    const [all] = groups.all ?? [];
    $("outcomes-panel").hidden = !all && !this.#fault;
    $("outcomes-fault").hidden = !this.#fault;
    $("outcomes-table").hidden = $("outcomes-note").hidden = !all;
    if (this.#fault) text($("outcomes-fault"), `${this.#fault}. ${all ? `These figures are of ${when(this.#shownAt)}.` : "The figures will be here when it is back."}`);
    if (!all) return;
    fill($("outcomes"), [...(groups[this.#dimension] ?? []), { ...all, group: "all lists" }].map((one) => [
      [one.group], [one.lists], [share(one.click_through)], [figure(one.conversions_per_thousand)], [figure(one.value_per_thousand)],
    ]));
    text($("outcomes-note"), `Lists of ${this.#shown.days.join(" and ")} (UTC), ${all.viewed} of them seen by somebody, as far as clients say so.`);
  }
}
