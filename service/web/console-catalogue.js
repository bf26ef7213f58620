// The catalogue: items by title or id, whether lists may have them, and the switch that takes one out of all lists.
import { el, text } from "./base.js";
import { when } from "./console-words.js";

const $ = (id) => document.getElementById(id);
const PAUSE_MS = 200;
const SHOWN = 12;

/** What an item costs and how many there are, in words. */
function facts({ item, disabled, listed, placed_by: placed }) {
  const said = [];
  if (item.category?.length) said.push(item.category.slice(0, 2).join(" · "));
  if (item.price !== undefined && item.price !== null) said.push(`${item.price} ${item.currency ?? ""}`.trim());
  if (item.stock !== undefined && item.stock !== null) said.push(typeof item.stock === "number" ? `${item.stock} in stock` : `stock: ${item.stock}`);
  if (!disabled && !listed) said.push(placed ? "not listed: out of stock, or outside its window" : "not listed: nothing gives it a place");
  return said.join(", ");
}

export class Catalogue {
  /** `ask(method, path)` calls the service; `confirm` confirms a change. */
  constructor(ask, confirm) {
    Object.assign(this, { ask, confirm, known: "" });
    let timer = null;
    $("catalogue-form").addEventListener("submit", (event) => event.preventDefault());
    $("catalogue-words").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.read(), PAUSE_MS);
    });
  }

  /** Reads the items that match, and the last changes; what a later keystroke asked for is shown. */
  async read() {
    const words = $("catalogue-words").value.trim();
    const asked = new URLSearchParams({ limit: String(SHOWN), ...(words && { q: words }) });
    const [found, changes] = await Promise.all(
      [`items?${asked}`, "ops/items/changes?limit=5"].map((path) => this.ask("GET", path).catch(() => null)));
    if (words !== $("catalogue-words").value.trim()) return;
    $("catalogue-panel").hidden = !found;
    if (found) this.show(found, words);
    if (changes) this.showChanges(changes.entries);
  }

  show({ items, warnings }, words) {
    text($("catalogue-note"), [...(items.length ? [] : [words ? "No item is like that." : "No items."]), ...warnings].join(" "));
    const now = JSON.stringify(items);
    if (this.known === now) return;
    this.known = now;
    $("catalogue").replaceChildren(...items.map((one) => {
      const { item_id: id, item, disabled } = one;
      const name = item.title ?? id;
      const tag = disabled ? ["bad", "disabled"] : one.listed ? ["good", "listed"] : ["warn", "not listed"];
      return el("li", {},
        el("strong", {}, name), item.title ? el("span", { class: "mono quiet small" }, id) : null,
        el("span", { class: `tag ${tag[0]}` }, tag[1]),
        el("button", { type: "button", "aria-label": `${disabled ? "Enable" : "Disable"} ${name}`, onclick: () => this.change(one, name) },
          disabled ? "Enable" : "Disable"),
        el("span", { class: "small quiet" }, facts(one)));
    }));
  }

  showChanges(entries) {
    $("catalogue-changes").hidden = !entries.length;
    $("catalogue-changes").replaceChildren(...entries.map((entry) => el("li", {},
      el("time", { datetime: entry.at, class: "quiet" }, when(entry.at)), el("strong", {}, entry.actor),
      el("span", {}, `${entry.action} ${entry.item_id}${entry.fields?.length ? `: ${entry.fields.join(", ")}` : ""}`))));
  }

  async change({ item_id: id, disabled }, name) {
    const what = disabled ? "Lists may have it again, on every replica, as far as its fields allow."
      : "No list has it any more, on every replica, until it is enabled.";
    const verb = disabled ? "enable" : "disable";
    const title = `${disabled ? "Enable" : "Disable"} ${name}?`;
    await this.confirm.ask({ title, what, go: disabled ? "Enable" : "Disable", look: disabled ? "main" : "danger",
      method: "POST", path: `items/${encodeURIComponent(id)}/${verb}`, noReason: true });
    this.read();
  }
}
