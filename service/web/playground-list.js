// The recommended items: rank, score, what changed, and a card of similar ones beside the pointer.

import { calm, el } from "./base.js";
import { because, category, contributed, figure, label, named, swatch } from "./playground-text.js";

const MOVE_MS = 320;
const HOVER_MS = 350;

/** The length of each score's bar, 0 to 1: of the model the weight in a draw, exp(score), else the score; relative to the best. */
export function bars(items, source) {
  const best = Math.max(...items.map((item) => item.score));
  if (source === "gpt4rec") return items.map((item) => Math.exp(item.score - best));
  return items.map((item) => (best > 0 ? Math.max(0, item.score / best) : 0));
}

function change(rank, before) {
  if (before === undefined) return el("span", { class: "moved new" }, "new");
  if (before === rank) return el("span", { class: "moved" });
  const up = before > rank;
  const steps = Math.abs(before - rank);
  return el("span", { class: up ? "moved up" : "moved down" },
    el("span", { "aria-hidden": "true" }, `${up ? "▲" : "▼"}${steps}`),
    el("span", { class: "read-out" }, `${up ? "up" : "down"} ${steps}`));
}

/** The place of an item in the list beside it. */
function other(rank) {
  if (rank === undefined) return el("span", { class: "moved new" }, "only here");
  return el("span", { class: "moved" }, el("span", { class: "read-out" }, "beside it number "), `#${rank}`);
}

export class List {
  /** `add(item)` is called for an item to add to the history; `similar` is a `Similar`. */
  constructor(node, add, similar) {
    Object.assign(this, { node, add, similar, ranks: null, beside: null });
  }

  /** Shows an answer; rows that stay move to their new places. `beside` is the answer next to it, null without one. */
  show(answer, about, beside = null) {
    const { items } = answer;
    this.beside = beside && new Map(beside.items.map((item) => [item.item_id, item.rank]));
    const places = new Map([...this.node.children].map((row) => [row.dataset.item, row.getBoundingClientRect().top]));
    const focused = this.node.contains(document.activeElement) && document.activeElement.closest("[data-item]");
    const kept = focused && { item: focused.dataset.item, at: [...this.node.children].indexOf(focused),
      what: document.activeElement.className };
    const length = bars(items, answer.source);
    const rows = items.map((item, at) => this.row({ ...item, ...about(item.item_id) }, length[at]));
    this.node.replaceChildren(...rows);
    this.ranks = new Map(items.map((item) => [item.item_id, item.rank]));
    this.move(places);
    if (kept) {
      const row = rows.find((one) => one.dataset.item === kept.item) || rows[Math.min(kept.at, rows.length - 1)];
      row?.getElementsByClassName(kept.what)[0]?.focus({ preventScroll: true });
    }
  }

  row(item, length) {
    const bar = el("div", { class: "fill" });
    bar.style.width = `${Math.max(0.5, length * 100)}%`;
    const name = named(item);
    const take = el("button", { type: "button", class: "take", title: "Add to the history",
      onclick: () => this.add(item) },
      el("span", { class: "rank" }, String(item.rank)), swatch(item),
      el("span", { class: "what" }, label(item),
        el("span", { class: "quiet small" }, category(item)),
        el("span", { class: "reason quiet small" }, because(item))),
      el("span", { class: "score", title: `score ${item.score}${contributed(item) && `: ${contributed(item)}`}` },
        el("span", { class: "track", "aria-hidden": "true" }, bar),
        el("span", { class: "small quiet" }, figure(item.score))),
      this.note(item));
    const like = el("button", { type: "button", class: "like plain", "aria-label": `Similar to ${name}`,
      title: "Similar items", onclick: () => this.similar.open(item, like) }, "≈");
    const row = el("li", { "data-item": item.item_id }, take, like);
    row.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") this.similar.soon(item, row, HOVER_MS);
    });
    row.addEventListener("pointerleave", () => this.similar.leave());
    return row;
  }

  /** What is said of an item's place: where it stands in the list beside this one, else how it moved. */
  note(item) {
    if (this.beside) return other(this.beside.get(item.item_id));
    return this.ranks ? change(item.rank, this.ranks.get(item.item_id)) : el("span", { class: "moved" });
  }

  /** Rows that stay slide from their old places; new ones fade in. */
  move(places) {
    if (calm() || !places.size) return;
    for (const row of this.node.children) {
      const from = places.get(row.dataset.item);
      if (from === undefined) {
        row.animate([{ opacity: 0, transform: "translateY(0.5rem)" }, { opacity: 1, transform: "none" }],
          { duration: MOVE_MS, easing: "ease-out" });
        continue;
      }
      const by = from - row.getBoundingClientRect().top;
      if (Math.abs(by) < 1) continue;
      row.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }],
        { duration: MOVE_MS, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
  }
}

/** A card of similar items, opened by pointing at an item for a moment, or by its button. */
export class Similar {
  /** `find(itemId, signal)` returns the neighbours; `mark(ids)` marks those that are in the history. */
  constructor(card, find, add, mark) {
    Object.assign(this, { card, find, add, mark, kept: new Map(), opener: null });
    card.addEventListener("pointerenter", () => clearTimeout(this.timer));
    card.addEventListener("pointerleave", () => this.leave());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !card.hidden) this.close(true);
    });
    document.addEventListener("pointerdown", (event) => {
      if (!card.hidden && !card.contains(event.target)) this.close();
    });
    addEventListener("scroll", () => !this.opener && this.close(), { passive: true });
  }

  soon(item, beside, pause) {
    clearTimeout(this.timer);
    if (this.opener) return;
    this.timer = setTimeout(() => this.show(item, beside), pause);
  }

  leave() {
    clearTimeout(this.timer);
    if (!this.opener) this.timer = setTimeout(() => this.close(), 200);
  }

  async open(item, opener) {
    clearTimeout(this.timer);
    this.opener = opener;
    await this.show(item, opener);
    this.card.querySelector("button")?.focus({ preventScroll: true });
  }

  async show(item, beside) {
    this.request?.abort();
    this.request = new AbortController();
    let near = this.kept.get(item.item_id);
    try {
      near = near || (await this.find(item.item_id, this.request.signal));
    } catch {
      return; // the page shows the error elsewhere
    }
    this.kept.set(item.item_id, near);
    if (!beside.isConnected) return;
    this.mark(near.map((one) => one.item_id));
    const [title, list] = this.card.children;
    title.textContent = `Similar to ${named(item)}`;
    const rows = near.slice(0, 6).map((one) => el("li", {},
      el("button", { type: "button", class: "plain", onclick: () => this.taken(one) }, named(one))));
    list.replaceChildren(...(rows.length ? rows : [el("li", { class: "quiet" }, "no similar items are known")]));
    this.card.hidden = false;
    this.place(beside.getBoundingClientRect());
  }

  place(at) {
    const { offsetWidth: width, offsetHeight: height } = this.card;
    const room = innerWidth - at.right;
    const left = room > width + 16 ? at.right + 8 : Math.max(8, Math.min(at.right - width, innerWidth - width - 8));
    const below = room > width + 16 ? at.top : at.bottom + 4;
    this.card.style.left = `${left}px`;
    this.card.style.top = `${Math.max(8, Math.min(below, innerHeight - height - 8))}px`;
  }

  taken(item) {
    this.close(true);
    this.add(item);
  }

  close(back = false) {
    clearTimeout(this.timer);
    this.request?.abort();
    if (!this.card.hidden && back) this.opener?.focus({ preventScroll: true });
    this.opener = null;
    this.card.hidden = true;
    this.mark([]);
  }
}
