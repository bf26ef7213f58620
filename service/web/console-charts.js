// Two small charts of the last minutes, drawn as SVG. Their scales change rarely, so that nothing jumps.
import { el, text } from "./base.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300; // seconds
const HEIGHT = 100;
const STEPS = [1, 2, 3, 4, 6, 8, 10];

const svg = (tag, attributes = {}) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

/** Returns the next larger round number. */
export function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return STEPS.map((step) => step * power).find((step) => step >= value * 0.999) || 10 * power;
}

/** A scale that grows at once, but shrinks only when it is far too large. */
function scale() {
  let top = 0;
  return (needed) => {
    const wanted = nice(needed);
    if (wanted > top || wanted <= top / 4) top = wanted;
    return top;
  };
}

class Chart {
  constructor(box, legend, unit) {
    this.box = box;
    this.legend = legend;
    this.top = scale();
    this.unit = unit;
    this.at = null;
    this.rows = [];
    this.svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.svg.append(svg("path", { class: "grid", d: `M0 0H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT}H${WIDTH}` }));
    this.marks = svg("g");
    this.cursor = svg("path", { class: "cursor" });
    this.svg.append(this.marks, this.cursor);
    this.yTop = el("span", { class: "y top", "aria-hidden": "true" });
    this.yMid = el("span", { class: "y mid", "aria-hidden": "true" });
    this.none = el("span", { class: "none" }, "No answers in the last five minutes");
    box.replaceChildren(
      this.svg, this.yTop, this.yMid, this.none,
      el("span", { class: "x from", "aria-hidden": "true" }, "5 min ago"),
      el("span", { class: "x at", "aria-hidden": "true" }), el("span", { class: "x to", "aria-hidden": "true" }, "now"),
    );
    this.xAt = box.querySelector(".x.at");
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerleave", () => this.point(null));
  }

  point(event) {
    if (event === null) this.at = null;
    else {
      const area = this.svg.getBoundingClientRect();
      this.at = Math.max(0, Math.min(WIDTH - 1, Math.floor(((event.clientX - area.left) / area.width) * WIDTH)));
    }
    this.read();
  }

  /** The second shown in the legend: the one under the pointer, else the latest. */
  shown() {
    if (this.at !== null) return this.rows[this.at] || null;
    for (let place = this.rows.length - 1; place >= 0; place -= 1) if (this.rows[place]) return this.rows[place];
    return null;
  }

  read() {
    this.cursor.setAttribute("d", this.at === null ? "" : `M${this.at + 0.5} 0V${HEIGHT}`);
    text(this.xAt, this.at === null ? "" : `${WIDTH - this.at} s ago`);
    this.tell(this.shown());
  }

  scaleTo(top) {
    text(this.yTop, `${top} ${this.unit}`);
    text(this.yMid, `${top / 2}`);
    return (value) => (HEIGHT * (1 - Math.min(1, value / top))).toFixed(2);
  }
}

/** p50, p95 and p99, with the budget. */
export class Latency extends Chart {
  constructor(box, legend) {
    super(box, legend, "ms");
    this.lines = [["p99_ms", "c4"], ["p95_ms", "c2"], ["p50_ms", "c1"]].map(([name, colour]) => {
      const line = svg("path", { class: `line ${colour}` });
      this.marks.append(line);
      return [name, line];
    });
    this.budgetLine = svg("path", { class: "budget" });
    this.marks.append(this.budgetLine);
    const key = (colour, label) => [el("span", {}, el("i", { class: `key line ${colour}` }), `${label} `, el("b", {}, "–"))];
    this.entries = { p50_ms: key("c1", "p50"), p95_ms: key("c2", "p95"), p99_ms: key("c4", "p99") };
    this.budgetEntry = el("span", {}, el("i", { class: "key dash c6" }), el("span"));
    legend.replaceChildren(...Object.values(this.entries).flat(), this.budgetEntry);
  }

  draw(rows, budget, ms) {
    this.rows = rows;
    this.ms = ms;
    const most = Math.max(budget * 1.2, ...rows.map((row) => (row && row.p99_ms) || 0));
    const y = this.scaleTo(this.top(most));
    for (const [name, line] of this.lines) {
      let path = "";
      let last = -9;
      rows.forEach((row, x) => {
        if (!row || row[name] === null) return;
        // A single point is drawn as a short line; gaps of a few seconds without traffic are bridged.
        path += `${x - last <= 3 ? "L" : "M"}${x + 0.5} ${y(row[name])}${x - last <= 3 ? "" : "h0.01"}`;
        last = x;
      });
      line.setAttribute("d", path);
    }
    this.budgetLine.setAttribute("d", `M0 ${y(budget)}H${WIDTH}`);
    text(this.budgetEntry.lastChild, `budget ${ms(budget)}`);
    this.none.hidden = rows.some((row) => row && row.p50_ms !== null);
    this.read();
  }

  tell(row) {
    for (const [name, [entry]] of Object.entries(this.entries)) {
      text(entry.querySelector("b"), row && row[name] !== null ? this.ms(row[name]) : "–");
    }
    const summary = row ? ["p50", "p95", "p99"].map((name) => `${name} ${this.ms ? this.ms(row[`${name}_ms`]) : "–"}`).join(", ") : "no answers";
    this.svg.setAttribute("aria-label", `Latency of the last five minutes; latest second: ${summary}`);
  }
}

/** Answers a second, stacked by rung, source or reason. */
export class Mix extends Chart {
  constructor(box, legend) {
    super(box, legend, "/s");
    this.areas = new Map();
    this.kind = "rung";
    this.order = [];
  }

  draw(rows, kind, order) {
    this.rows = rows;
    const seen = new Set(rows.flatMap((row) => (row ? Object.keys(row[kind]) : [])));
    const names = [...order.filter(([name]) => seen.has(name)), ...[...seen].filter((name) => !order.some(([known]) => known === name)).sort().map((name) => [name, "c5"])];
    if (kind !== this.kind || names.join() !== this.order.join()) this.rebuild(kind, names);
    const most = Math.max(1, ...rows.map((row) => (row ? names.reduce((sum, [name]) => sum + (row[kind][name] || 0), 0) : 0)));
    const y = this.scaleTo(this.top(most));
    const base = rows.map(() => 0);
    for (const [name] of names) {
      let path = "";
      rows.forEach((row, x) => {
        const value = row ? row[kind][name] || 0 : 0;
        if (value) path += `M${x} ${y(base[x])}V${y(base[x] + value)}h1.02V${y(base[x])}z`;
        base[x] += value;
      });
      this.areas.get(name).area.setAttribute("d", path);
    }
    this.none.hidden = base.some((value) => value > 0);
    text(this.none, kind === "reason" ? "Every answer of the last five minutes came from the top rung" : "No answers in the last five minutes");
    this.read();
  }

  rebuild(kind, names) {
    this.kind = kind;
    this.order = names;
    this.areas = new Map(names.map(([name, colour]) => [name, {
      area: svg("path", { class: `area ${colour}` }),
      entry: el("span", {}, el("i", { class: `key ${colour}` }), `${name} `, el("b", {}, "–")),
    }]));
    this.marks.replaceChildren(...[...this.areas.values()].map(({ area }) => area));
    this.legend.replaceChildren(...[...this.areas.values()].map(({ entry }) => entry));
  }

  tell(row) {
    const summary = [];
    for (const [name, { entry }] of this.areas) {
      const value = row ? row[this.kind][name] || 0 : 0;
      text(entry.querySelector("b"), value);
      summary.push(`${name} ${value}`);
    }
    this.svg.setAttribute("aria-label", `Answers a second by ${this.kind}; latest second: ${summary.join(", ") || "none"}`);
  }
}
