// The panel of experiments: what their arms earned, and how to start, stop and promote. Each change is shown before it is made.
import { el, text } from "./base.js";
import { ms, share } from "./console-words.js";

const $ = (id) => document.getElementById(id);
const ENDED_SHOWN = 5;
const STATES = { running: "good", returned: "bad", stopped: "", promoted: "" };
const signed = (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${share(Math.abs(value))}`;
const chance = (p) => (p < 0.001 ? "< 0.001" : p.toFixed(3));

/** Shows the answer of /ops/experiments. `confirm` asks before a change; `changed` is told whether it was made. */
export class Experiments {
  #confirm;
  #changed;

  constructor(confirm, changed) {
    this.#confirm = confirm;
    this.#changed = changed;
    $("start-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    $("start-kind").addEventListener("change", () => this.#describeShare());
  }

  show(answer, models) {
    $("experiments-panel").hidden = false;
    const ended = answer.experiments.filter((one) => one.state !== "running").slice(0, ENDED_SHOWN);
    const shown = [...answer.experiments.filter((one) => one.state === "running"), ...ended];
    const now = JSON.stringify(shown);
    if ($("experiments").dataset.shown !== now) {
      const key = document.activeElement?.dataset.key;
      $("experiments").dataset.shown = now;
      $("experiments").replaceChildren(...shown.map((one) => this.#experiment(one)));
      if (key) $("experiments").querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
    }
    const { holdout, memory } = answer;
    const faults = Object.entries(memory.faults).map(([version, fault]) => `${version} is not held: ${fault}`);
    $("experiments-fault").hidden = !faults.length;
    text($("experiments-fault"), faults.join("; "));
    text($("experiments-note"), [
      shown.length ? "" : "None so far.",
      holdout ? `${share(holdout.share)} of all users are held out: ${holdout.model} answers them.` : "",
      `${memory.held_mib} of ${memory.limit_mib} MiB are used by models held beside the one in service.`,
    ].filter(Boolean).join(" "));
    this.#offer(models);
  }

  #experiment(one) {
    const running = one.state === "running";
    const button = (words, label, act) => el("button", { type: "button", class: "plain", "data-key": label, "aria-label": label, onclick: act }, words);
    return el("li", {},
      el("header", {},
        el("h3", {}, one.name),
        el("span", { class: `tag ${STATES[one.state]}` }, one.state),
        el("span", { class: "small quiet push" }, where(one)),
        running && button("Stop", `Stop ${one.name}`, () => this.#stop(one))),
      one.cause && el("p", { class: "small" }, one.cause),
      one.shares_mismatch && el("p", { class: "note bad small" }, `The shares of the arms do not hold (p ${chance(one.shares_p)}): believe nothing of this.`),
      one.shadow ? shadow(one, running && button("Promote", `Promote ${one.arms[0].name} of ${one.name}`, () => this.#promote(one, one.arms[0])))
        : this.#arms(one, running, button));
  }

  #arms(one, running, button) {
    const heads = ["Arm", "Share", "Lists", "Clicked", "Lift (95 %)", "p", "Power", "Late, failed, below", "Breaker"];
    const rows = one.arms.map((arm, place) => {
      const found = arm.comparison;
      const known = found && found.lift !== null;
      const bad = arm.answers ? [arm.late, arm.failed, arm.below].map((n) => share(n / arm.answers)).join(", ") : "–";
      const lift = !found ? "first arm" : known ? `${signed(found.lift)} (${signed(found.low)} to ${signed(found.high)})` : "too few clicks";
      const guard = arm.breaker ? (arm.breaker.state === "closed" ? "closed" : `${arm.breaker.state.replace("_", " ")}, gets ${share(arm.breaker.model_share)}`) : "–";
      const hot = known && (found.high < 0 || found.low > 0) ? (found.high < 0 ? "hot" : "good-ink") : "";
      const cells = [[share(arm.share)], [arm.lists], [share(arm.click_through)], [lift, hot], [known ? chance(found.p) : "–"],
        [found ? share(found.power) : "–"], [bad], [guard, arm.breaker && arm.breaker.state !== "closed" ? "hot" : ""]];
      return el("tr", {},
        el("th", { scope: "row", title: what(arm) }, arm.name),
        ...cells.map(([shown, level]) => el("td", { class: `number ${level || ""}` }, String(shown))),
        el("td", { class: "number" }, running && place > 0 && button("Promote", `Promote ${arm.name} of ${one.name}`, () => this.#promote(one, arm))));
    });
    return el("div", { class: "scrolls", role: "region", tabIndex: 0, "aria-label": `Arms of ${one.name}` },
      el("table", {},
        el("thead", {}, el("tr", {}, ...heads.map((head, at) => el("th", { scope: "col", class: at ? "number" : "" }, head)), el("td", {}))),
        el("tbody", {}, ...rows)),
      el("p", { class: "small quiet" }, `${one.arms.map((arm) => `${arm.name}: ${what(arm)}`).join("; ")}. `
        + (one.counted ? `Shares of the arms hold (p ${chance(one.shares_p)}).` : "Redis is away: nothing is counted.")));
  }

  async #ask(change) {
    this.#changed(await this.#confirm.ask({ preview: true, method: "POST", body: {}, ...change }));
  }

  #stop(one) {
    return this.#ask({ title: `Stop ${one.name}?`, what: "On every replica this would", go: "Stop it", look: "danger", path: `${at(one)}/stop` });
  }

  #promote(one, arm) {
    return this.#ask({
      title: `Promote ${arm.name} of ${one.name}?`, what: "On every replica this would", go: "Promote it", look: "main",
      path: `${at(one)}/promote`, body: { arm: arm.name },
    });
  }

  #start() {
    const [kind, model] = [$("start-kind").value, $("start-model").value];
    const of = { name: $("start-name").value.trim(), share: Number($("start-share").value) / 100 };
    const split = { ...of, arms: [{ name: "old", share: 0.5 }, { name: "new", share: 0.5, model }] };
    const body = {
      shadow: { ...of, kind: "shadow", arms: [{ name: "candidate", model }] },
      canary: { ...split, steps: [0.02, 0.1, 0.5, 1], guardrails: {} },
      split,
    }[kind];
    return this.#ask({ title: `Start ${of.name}?`, what: "On every replica this would", go: "Start it", look: "main", path: "ops/experiments", body });
  }

  /** Offers the versions that an arm may have. */
  #offer(models) {
    const versions = (models?.models || []).filter((one) => one.available && !one.active).map((one) => one.version);
    const now = JSON.stringify(versions);
    if ($("start-model").dataset.shown === now) return;
    $("start-model").dataset.shown = now;
    const kept = $("start-model").value;
    $("start-model").replaceChildren(...versions.map((version) => el("option", { value: version }, version)));
    if (versions.includes(kept)) $("start-model").value = kept;
    $("start-go").disabled = !versions.length;
    text($("start-note"), versions.length ? "Arms of policies or ranker weights: gpt4rec ops experiment start FILE." : "There is no other model to try. Arms of policies or ranker weights: gpt4rec ops experiment start FILE.");
  }

  #describeShare() {
    text($("start-share-label"), $("start-kind").value === "shadow" ? "Share of the requests, %" : "Share of the users, %");
  }
}

const at = (one) => `ops/experiments/${encodeURIComponent(one.name)}`;

function what(arm) {
  const parts = [arm.model && `model ${arm.model}`, arm.policies && `policies of ${arm.policies.join(", ")}`, arm.ranker && `ranker weights ${arm.ranker}`];
  return parts.filter(Boolean).join(" and ") || "as for everybody";
}

function where(one) {
  if (one.shadow) return `shadow of ${share(one.share)} of the requests`;
  const step = one.steps.length > 1 ? `canary, step ${one.step} of ${one.steps.length}: ${share(one.portion)} let in of ` : "";
  return `${step}${share(one.share)} of the layer ${one.layer}`;
}

function shadow(one, promote) {
  const found = one.shadow;
  const { compared, ...others } = found.requests;
  const left = Object.entries(others).filter(([, n]) => n).map(([name, n]) => `${n} ${name}`);
  const times = ["shown", "candidate"].map((side) => `${side} p50 ${ms(found[`${side}_ms`]?.p50)}, p95 ${ms(found[`${side}_ms`]?.p95)}`);
  return el("div", { class: "shadow" },
    el("p", {}, compared
      ? `Overlap ${share(found.overlap)} of the items; the same first item in ${share(found.same_first)} of the lists; ${times.join("; ")}.`
      : "Nothing is compared yet."),
    el("p", { class: "small quiet" }, [`Candidate: ${what(one.arms[0])}. ${compared} compared`, ...left].join(", ") + (one.counted ? "." : ". Redis is away: nothing is counted.")),
    promote);
}
