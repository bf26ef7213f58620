// The audit: who changed what and why, with filters.
import { el, text } from "./base.js";
import { when } from "./console-words.js";

const $ = (id) => document.getElementById(id);
const PAUSE_MS = 200;

export class Audit {
  /** `read()` reads the audit again with the present filters (`query`). */
  constructor(read) {
    this.known = "";
    let timer = null;
    $("audit-filters").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["audit-actor", "audit-action"]) $(id).addEventListener("change", read);
    $("audit-words").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(read, PAUSE_MS);
    });
  }

  /** The filters as part of an address. */
  get query() {
    const asked = { actor: $("audit-actor").value, action: $("audit-action").value, q: $("audit-words").value.trim() };
    return new URLSearchParams(Object.entries(asked).filter(([, value]) => value)).toString();
  }

  show({ entries, actors, actions }) {
    this.offer("audit-actor", actors);
    this.offer("audit-action", actions);
    $("audit-none").hidden = entries.length > 0;
    text($("audit-none"), this.query ? "No change is like that." : "No changes yet.");
    const now = JSON.stringify(entries);
    if (this.known === now) return;
    this.known = now;
    $("audit").replaceChildren(...entries.map((entry) => el("li", {},
      el("time", { datetime: entry.at, class: "quiet" }, when(entry.at)),
      el("strong", {}, entry.actor),
      el("span", {}, entry.text))));
  }

  /** Fills a choice; what is chosen stays. */
  offer(id, values) {
    const select = $(id);
    const had = [...select.options].map((option) => option.value).filter(Boolean);
    const all = [...new Set([...values, ...(select.value ? [select.value] : [])])].sort();
    if (all.join("\n") === had.join("\n")) return;
    const chosen = select.value;
    const any = select.options[0];
    select.replaceChildren(any, ...all.map((value) => el("option", { value }, value.replaceAll("_", " "))));
    select.value = chosen;
  }
}
