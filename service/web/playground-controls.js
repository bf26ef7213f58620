// The controls: everything that can be chosen except the history.

import { el } from "./base.js";
import { SPACINGS, rivals } from "./playground-state.js";
import { STRATEGIES, ms } from "./playground-text.js";

const BUDGETS = [1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 400, 800, 1500, 3000];
const FIRST = 14; // categories shown before "all"
const at = (id) => document.getElementById(id);

export class Controls {
  /** `change(part)` is called with each choice. */
  constructor(about, change) {
    Object.assign(this, { about, change, all: false });
    this.budgets = [...new Set([...BUDGETS.filter((ms) => ms <= about.budget_max_ms), about.budget_ms])]
      .sort((a, b) => a - b);
    this.segments();
    this.strategies();
    this.sliders();
    this.seeds();
    this.others();
  }

  segments() {
    const options = this.about.segments.map((one) =>
      el("option", { value: one.name }, `${one.name} (${STRATEGIES[one.strategy]})`));
    at("segment").replaceChildren(el("option", { value: "" }, "chosen from the history"), ...options);
    at("segment").addEventListener("change", (event) => this.change({ segment: event.target.value }));
  }

  strategies() {
    const pills = Object.entries(STRATEGIES).map(([value, label]) =>
      el("label", {}, el("input", { type: "radio", name: "strategy", value,
        onchange: () => this.change({ strategy: value }) }), el("span", {}, label)));
    at("strategies").replaceChildren(...pills);
  }

  sliders() {
    const slider = (id, part) => at(id).addEventListener("input", (event) => this.change(part(Number(event.target.value))));
    at("budget").max = String(this.budgets.length - 1);
    slider("beam", (beam) => ({ beam }));
    slider("top-p", (topP) => ({ topP }));
    slider("temperature", (temperature) => ({ temperature }));
    slider("k", (k) => ({ k }));
    slider("budget", (place) => ({ budget: this.budgets[place] }));
  }

  seeds() {
    at("seed").addEventListener("input", (event) => {
      if (event.target.value && event.target.checkValidity()) this.change({ seed: Number(event.target.value) });
    });
    at("roll").addEventListener("click", () => this.change({ seed: Math.floor(Math.random() * 10_000) }));
  }

  others() {
    const { about } = this;
    const usual = about.repeats ? "may be listed again" : "left out";
    at("seen").replaceChildren(...[["", `as the model does: ${usual}`], ["out", "left out"], ["in", "may be listed again"]]
      .map(([value, label]) => el("option", { value }, label)));
    at("seen").addEventListener("change", (event) => this.change({ seen: event.target.value }));
    at("field-rules").hidden = !about.rules.length;
    at("rules").replaceChildren(el("option", { value: "" }, `on: ${about.rules.join(", ")}`), el("option", { value: "off" }, "off"));
    at("rules").addEventListener("change", (event) => this.change({ rules: event.target.value }));
    at("beside").replaceChildren(...rivals(about).map(([value, label]) => el("option", { value }, label)));
    at("beside").addEventListener("change", (event) => this.change({ beside: event.target.value }));
    at("field-spacing").hidden = !about.times;
    at("spacing").replaceChildren(...SPACINGS.map(([value, label]) => el("option", { value }, label)));
    at("spacing").addEventListener("change", (event) => this.change({ spacing: event.target.value }));
    const choice = (name, values, chosen) => {
      const id = `who-${name}`;
      const pick = el("select", { id, onchange: (event) => this.change(chosen(event.target.value)) },
        el("option", { value: "" }, "unknown"), ...values.map((value) => el("option", { value }, value)));
      return el("div", { class: "field" }, el("label", { htmlFor: id }, name.replaceAll("_", " ")), pick);
    };
    const fields = Object.entries(about.features).map(([name, values]) => choice(name, values, (value) => {
      const features = { ...this.state.features };
      delete features[name];
      return { features: value ? { ...features, [name]: value } : features };
    }));
    if (about.scenes.length) fields.push(choice("scene", about.scenes, (scene) => ({ scene })));
    const codes = Object.entries(about.codes).filter(([, values]) => values.length);
    for (const [name, values] of codes) {
      const id = `code-${name}`;
      const chosen = (event) => {
        const { [name]: _, ...others } = this.state.codes;
        const { value } = event.target;
        this.change({ codes: value ? { ...others, [name]: value } : others });
      };
      const pick = el("select", { id, onchange: chosen },
        el("option", { value: "" }, "anything"), ...values.map((value) => el("option", { value }, value)));
      fields.push(el("div", { class: "field" }, el("label", { htmlFor: id }, `ask for ${name.replaceAll("_", " ")}`), pick));
    }
    if (about.event_types.length > 1) {
      const pick = el("select", { id: "type", onchange: (event) => this.change({ type: event.target.value }) },
        ...about.event_types.map((value) => el("option", { value }, value)));
      fields.push(el("div", { class: "field" }, el("label", { htmlFor: "type" }, "event type"), pick));
    }
    at("features").replaceChildren(...fields);
    at("field-features").hidden = !fields.length;
  }

  /** Shows the present choices. */
  show(state) {
    this.state = state;
    const set = (id, value) => {
      if (at(id) && at(id).value !== String(value)) at(id).value = String(value);
    };
    const said = (id, text) => {
      document.querySelector(`output[for="${id}"]`).textContent = text;
    };
    for (const id of ["segment", "beam", "k", "seen", "rules", "beside", "spacing", "temperature", "type"]) set(id, state[id]);
    if (document.activeElement !== at("seed")) set("seed", state.seed);
    set("top-p", state.topP);
    const place = this.budgets.reduce((best, budget, index) =>
      (Math.abs(budget - state.budget) < Math.abs(this.budgets[best] - state.budget) ? index : best), 0);
    set("budget", place);
    for (const radio of at("strategies").querySelectorAll("input")) radio.checked = radio.value === state.strategy;
    at("field-beam").hidden = state.strategy !== "beam";
    at("field-top-p").hidden = state.strategy !== "top_p";
    at("field-temperature").hidden = state.strategy !== "temperature";
    for (const [id, text] of [["beam", state.beam], ["k", state.k], ["top-p", state.topP.toFixed(2)],
      ["temperature", state.temperature.toFixed(1)], ["budget", ms(state.budget)]]) said(id, String(text));
    at("budget").setAttribute("aria-valuetext", ms(state.budget));
    for (const name of Object.keys(this.about.features)) set(`who-${name}`, state.features[name] || "");
    for (const name of Object.keys(this.about.codes)) set(`code-${name}`, state.codes[name] || "");
    set("who-scene", state.scene);
    this.categories(state);
  }

  categories(state) {
    const { categories } = this.about;
    at("field-categories").hidden = !categories.length;
    const chosen = new Set(state.categories);
    const shown = categories.filter((one, place) => this.all || place < FIRST || chosen.has(one.name));
    const node = at("categories");
    const key = `${shown.map((one) => one.name)}`;
    if (node.dataset.key !== key) {
      node.dataset.key = key;
      const chips = shown.map((one) => el("button", { type: "button", class: "chip", "data-name": one.name,
        title: `${one.items} items`, onclick: () => this.toggle(one.name) }, one.name));
      if (shown.length < categories.length) {
        chips.push(el("button", { type: "button", class: "chip more", onclick: () => {
          this.all = true;
          this.categories(this.state);
          node.children[FIRST]?.focus();
        } }, `all ${categories.length}`));
      }
      node.replaceChildren(...chips);
    }
    for (const chip of node.querySelectorAll("[data-name]")) {
      chip.setAttribute("aria-pressed", String(chosen.has(chip.dataset.name)));
    }
  }

  toggle(name) {
    const { categories } = this.state;
    this.change({ categories: categories.includes(name) ? categories.filter((one) => one !== name) : [...categories, name] });
  }
}
