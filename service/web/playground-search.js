// Finding items by title: a combobox that works by keyboard alone.

import { el } from "./base.js";
import { category, label, swatch } from "./playground-text.js";

const PAUSE_MS = 90;

export class Search {
  /** `find(words, signal)` returns items; `add(item)` is called for the chosen one. */
  constructor(input, list, find, add) {
    Object.assign(this, { input, list, find, add, items: [], at: -1 });
    input.addEventListener("input", () => this.later());
    input.addEventListener("focus", () => input.value.trim() && this.later());
    input.addEventListener("blur", () => this.close());
    input.addEventListener("keydown", (event) => this.key(event));
    // Choose before the field loses the focus.
    list.addEventListener("pointerdown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.choose(Number(option.dataset.at));
    });
  }

  later() {
    clearTimeout(this.timer);
    this.request?.abort();
    this.fresh = false;
    this.timer = setTimeout(() => this.look(), PAUSE_MS);
  }

  async look() {
    this.request?.abort();
    this.request = new AbortController();
    const words = this.input.value;
    try {
      const items = await this.find(words, this.request.signal);
      if (words === this.input.value && document.activeElement === this.input) this.show(items);
    } catch (error) {
      if (error.name !== "AbortError") this.close();
    }
  }

  show(items) {
    this.items = items;
    this.fresh = true;
    this.at = items.length && this.input.value.trim() ? 0 : -1;
    const options = items.map((item, at) =>
      el("li", { role: "option", id: `found-${at}`, "data-at": String(at), "aria-selected": "false" },
        swatch(item), el("span", { class: "what" }, label(item), el("span", { class: "quiet small" }, category(item)))));
    if (!items.length) options.push(el("li", { class: "quiet none" }, "No item with this title."));
    this.list.replaceChildren(...options);
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.mark();
    if (this.hurried) this.choose(0);
  }

  mark() {
    for (const option of this.list.querySelectorAll("[role=option]")) {
      const chosen = Number(option.dataset.at) === this.at;
      option.setAttribute("aria-selected", String(chosen));
      if (chosen) option.scrollIntoView({ block: "nearest" });
    }
    if (this.at < 0) this.input.removeAttribute("aria-activedescendant");
    else this.input.setAttribute("aria-activedescendant", `found-${this.at}`);
  }

  close() {
    clearTimeout(this.timer);
    this.timer = null;
    this.hurried = false;
    this.request?.abort();
    this.list.hidden = true;
    this.items = [];
    this.at = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  choose(at) {
    const item = this.items[at];
    if (!item) return;
    this.input.value = "";
    this.close();
    this.add(item);
  }

  key(event) {
    const { key } = event;
    if (key === "ArrowDown" || key === "ArrowUp") {
      event.preventDefault();
      if (this.list.hidden) return this.later();
      const step = key === "ArrowDown" ? 1 : -1;
      const { length } = this.items;
      if (length) this.at = this.at < 0 ? (step > 0 ? 0 : length - 1) : (this.at + step + length) % length;
      this.mark();
    } else if (key === "Enter") {
      event.preventDefault();
      // Enter right after typing chooses the first match.
      if (this.fresh || !this.input.value.trim()) this.choose(this.at);
      else this.hurried = true;
    } else if (key === "Escape") {
      event.preventDefault();
      if (this.list.hidden) this.input.value = "";
      this.close();
    }
    return undefined;
  }
}
