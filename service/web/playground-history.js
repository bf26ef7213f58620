// The history: its events, oldest first, with the share of each.

import { el } from "./base.js";
import { category, label, named, percent, swatch } from "./playground-text.js";

export class History {
  /** `change(ids, said)` is called with the new history and the text to read out. */
  constructor(node, change, about) {
    Object.assign(this, { node, change, about, ids: [], weights: null });
    node.addEventListener("dragover", (event) => this.over(event));
    node.addEventListener("drop", (event) => event.preventDefault());
  }

  /** Shows these events; `again` draws them even if they are the same, because more is known of them. */
  show(ids, again = false) {
    const same = !again && ids.length === this.ids.length && ids.every((id, at) => id === this.ids[at]);
    if (same && this.node.children.length === ids.length) return;
    const longer = ids.length > this.ids.length;
    this.ids = [...ids];
    const [focus, at] = this.focused();
    this.node.replaceChildren(...ids.map((id, place) => this.row(id, place)));
    if (focus) {
      const rows = this.node.children;
      rows[Math.min(at, rows.length - 1)]?.getElementsByClassName(focus)[0]?.focus({ preventScroll: true });
    }
    if (longer) this.node.scrollTop = this.node.scrollHeight;
    this.weigh(null);
  }

  /** Notes which button of which row has the focus, so that it can be restored. */
  focused() {
    const button = document.activeElement;
    const row = this.node.contains(button) && button.closest("li");
    if (!row) return [null, -1];
    const at = this.goes ?? [...this.node.children].indexOf(row);
    this.goes = null;
    return [button.className.split(" ")[0], at];
  }

  row(id, place) {
    const item = this.about(id);
    const name = named(item);
    const button = (what, sign, label, act, disabled = false) =>
      el("button", { type: "button", class: `${what} plain`, "aria-label": `${label}: ${name}`, title: label,
        disabled, onclick: act }, sign);
    const row = el("li", { "data-item": id, draggable: true },
      el("span", { class: "item" }, swatch(item), label(item)),
      el("div", { class: "tools" },
        button("earlier", "↑", "Move to before", () => this.shift(place, -1), place === 0),
        button("later", "↓", "Move to after", () => this.shift(place, 1), place === this.ids.length - 1),
        button("remove", "✕", "Remove", () => this.remove(place))),
      el("div", { class: "share" }, el("span", { class: "quiet small kind" }, category(item)), el("div", { class: "track", "aria-hidden": "true" }, el("div", { class: "fill" })),
        el("span", { class: "small number" })));
    row.addEventListener("dragstart", (event) => {
      this.dragged = row;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", name);
      row.classList.add("dragged");
    });
    row.addEventListener("dragend", () => this.dropped());
    return row;
  }

  shift(place, by) {
    const ids = [...this.ids];
    const [moved] = ids.splice(place, 1);
    ids.splice(place + by, 0, moved);
    this.goes = place + by;
    this.change(ids, `${named(this.about(moved))} is now number ${place + by + 1}`);
  }

  remove(place) {
    const ids = this.ids.filter((_, at) => at !== place);
    this.change(ids, `${named(this.about(this.ids[place]))} removed`);
  }

  over(event) {
    if (!this.dragged) return;
    event.preventDefault();
    const row = event.target.closest("li");
    if (!row || row === this.dragged) return;
    const { top, height } = row.getBoundingClientRect();
    row[event.clientY > top + height / 2 ? "after" : "before"](this.dragged);
  }

  dropped() {
    this.dragged?.classList.remove("dragged");
    this.dragged = null;
    const ids = [...this.node.children].map((row) => row.dataset.item);
    this.ids = [];
    this.change(ids, "moved");
  }

  /** Shows the share of each event; null if it is not known. */
  weigh(weights) {
    const known = weights && weights.length === this.ids.length;
    const most = known ? Math.max(...weights, 1e-9) : 1;
    this.node.classList.toggle("weighed", Boolean(known));
    [...this.node.children].forEach((row, at) => {
      row.querySelector(".fill").style.width = known ? `${(weights[at] / most) * 100}%` : "0";
      row.querySelector(".share .number").textContent = known ? percent(weights[at]) : "";
    });
  }

  /** Marks the events of these items, the neighbours of the item that is looked at. */
  mark(ids) {
    for (const row of this.node.children) row.classList.toggle("related", ids.includes(row.dataset.item));
  }
}
