// The editor of policies and rules: what is in force as JSON, a preview on recent requests, and the change.
import { text } from "./base.js";

const $ = (id) => document.getElementById(id);
const SHOWN = 3;
// Members of the answer that are not part of the policies.
const ABOUT = ["request_id", "origin", "version", "changed_at", "actor", "reason", "shared"];

/** The titles of the first items, and how many more there are. */
function some(titles) {
  const more = titles.length - SHOWN;
  return `${titles.slice(0, SHOWN).join(", ") || "nothing"}${more > 0 ? ` and ${more} more` : ""}`;
}

/** The lists of a preview that would change, a sentence each. */
export function examples({ examples: lists }) {
  return lists.map(({ segment, goes, comes }) =>
    `${[...new Set(segment)].join(" → ")}: ${goes.length || comes.length ? `without ${some(goes)}; with ${some(comes)}` : "the same items in another order"}`);
}

export class PoliciesEditor {
  /** `confirm` asks for the reason; `done(changed)` is called after it. */
  constructor(confirm, done) {
    Object.assign(this, { confirm, done, shown: "" });
    $("policies-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.set();
    });
    $("policies-back").addEventListener("click", () => this.put(this.shown));
    $("policies-reset").addEventListener("click", async () => {
      this.done(await this.confirm.ask({ title: "Back to the file?", what: "Every replica uses the policies of its own file again.",
        go: "Back to the file", look: "main", method: "DELETE", path: "ops/policies", body: {} }));
    });
    $("policies").addEventListener("input", () => this.fault(""));
  }

  /** Shows what is in force; edits that were not made yet stay. */
  show(answer) {
    const policies = Object.fromEntries(Object.entries(answer).filter(([name]) => !ABOUT.includes(name)));
    const now = JSON.stringify(policies, null, 2);
    const edited = $("policies").value !== this.shown;
    const other = now !== this.shown;
    this.shown = now;
    if (!edited) this.put(now);
    const origin = answer.origin === "file" ? "from the file of each replica" : `set by ${answer.actor ?? "an operator"}`;
    text($("policies-origin"), `In force: ${origin}${edited && other ? "; they have changed since you began to edit" : ""}.`);
    $("policies-reset").disabled = answer.origin === "file";
  }

  put(json) {
    $("policies").value = json;
    this.fault("");
  }

  fault(why) {
    $("policies-fault").hidden = !why;
    text($("policies-fault"), why);
  }

  async set() {
    let body;
    try {
      body = JSON.parse($("policies").value);
    } catch (error) {
      this.fault(`This is no JSON: ${error.message}`);
      return;
    }
    const made = await this.confirm.ask({ title: "Set these policies?", what: "Every replica decodes by them, and keeps their rules.",
      go: "Set the policies", look: "main", method: "PUT", path: "ops/policies", body, preview: true, examples });
    if (made) this.shown = $("policies").value;
    this.done(made);
  }
}
