// The operators' console: the login, a stream of snapshots, and the controls.
import { ask, chosen, el, keeper, offerSpaces, text } from "./base.js";
import { Latency, Mix } from "./console-charts.js";
import { Audit } from "./console-audit.js";
import { Catalogue } from "./console-catalogue.js";
import { Confirm } from "./console-confirm.js";
import { Experiments } from "./console-experiments.js";
import { Outcomes } from "./console-outcomes.js";
import { PoliciesEditor } from "./console-policies.js";
import { Stream } from "./console-stream.js";
import { showWatch } from "./console-watch.js";
import { share, span, ms, verdict, when } from "./console-words.js";

const $ = (id) => document.getElementById(id);
const SECONDS = 300;
const REREAD_MS = 10000;
const ORDERS = {
  rung: [["full", "c1"], ["narrow", "c2"], ["item_cf", "c3"], ["popular", "c4"]],
  source: [["gpt4rec", "c1"], ["repeat", "c2"], ["item_cf", "c3"], ["popular", "c4"]],
  reason: [
    ["forced", "c1"], ["overload", "c2"], ["deadline", "c3"], ["latency_budget", "c4"], ["breaker_open", "c6"],
    ["error_budget", "c6"], ["model_error", "c6"],
  ],
};
const kept = keeper("ops");
const latency = new Latency($("c-latency"), $("l-latency"));
const mix = new Mix($("c-mix"), $("l-mix"));
const outcomes = new Outcomes(fill);
const seconds = new Map();

let secret = "";
let stream = null;
let snapshot = null;
let heardAt = 0;
let kind = "rung";
let seenVersion = null;
let reread = 0;

const confirm = new Confirm((method, path, body) => ask(method, path, { body, secret }));
const experiments = new Experiments(confirm, changed);
const editor = new PoliciesEditor(confirm, changed);
const audit = new Audit(rereadRest);
const catalogue = new Catalogue((method, path) => ask(method, path, { secret }), confirm);

// -- logging in and out

function enter(token) {
  secret = token;
  kept.set(token);
  seconds.clear();
  seenVersion = null;
  stream = new Stream(token, {
    status: (arrived) => {
      if (!snapshot) {
        $("login").hidden = true;
        $("board").hidden = false;
        $("leave").hidden = false;
        ask("GET", "ops/spaces", { secret }).then((found) => offerSpaces($("space"), found), () => {});
        $("main").focus({ preventScroll: true });
      }
      heardAt = Date.now();
      snapshot = arrived;
      show();
    },
    link: showLink,
    refused: (error) => leave(error.status === 401 ? (snapshot ? error.message : "This is not an ops token of this service.") : error.message),
  });
}

function leave(why = "") {
  stream?.close();
  stream = snapshot = null;
  secret = "";
  kept.set("");
  chosen.set("");
  $("space").parentNode.hidden = true;
  confirm.close();
  $("board").hidden = $("leave").hidden = true;
  $("login").hidden = false;
  $("login-fault").hidden = !why;
  text($("login-fault"), why);
  text($("model"), "");
  showLink("none");
  $("token").value = "";
  $("token").focus();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  $("login-fault").hidden = true;
  stream?.close();
  enter($("token").value.trim());
});
$("leave").addEventListener("click", () => leave());
$("link-now").addEventListener("click", () => stream?.now());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) stream?.now();
});

function showLink(state, left) {
  const says = { live: "Live", connecting: snapshot ? "Reconnecting …" : "Connecting …", waiting: `Reconnecting in ${left} s`, none: "Not connected" };
  $("link").className = `tag ${{ live: "good", waiting: "bad", connecting: snapshot ? "warn" : "" }[state] || ""}`;
  // A countdown is not read out second by second.
  $("link").setAttribute("aria-live", state === "waiting" ? "off" : "polite");
  text($("link"), says[state]);
  $("link-now").hidden = state !== "waiting";
  $("board").classList.toggle("stale", state === "waiting" || state === "connecting");
  if (state === "waiting" && snapshot) showVerdict(["bad", "No connection:", `the service does not answer this console. The figures are ${span((Date.now() - heardAt) / 1000)} old.`]);
  if (state === "waiting" && !snapshot && stream) {
    $("login-fault").hidden = false;
    text($("login-fault"), "The service does not answer. Retrying.");
  }
}

// -- the figures

function show() {
  for (const row of snapshot.series) seconds.set(row.t, row);
  const latest = Math.max(0, ...seconds.keys());
  const now = Math.max(latest, Math.floor(Date.parse(snapshot.at) / 1000) - 1);
  for (const t of seconds.keys()) if (t <= now - SECONDS) seconds.delete(t);
  const rows = Array.from({ length: SECONDS }, (_, place) => seconds.get(now - SECONDS + 1 + place) || null);
  latency.draw(rows, snapshot.budget_ms, ms);
  mix.draw(rows, kind, ORDERS[kind] ?? segmentOrder());
  showVerdict(verdict(snapshot));
  showTiles(rows);
  showSources();
  showBurn();
  showMode();
  showBreaker();
  showParts();
  showWatch(snapshot.watch);
  redraw($("links"), Object.entries(snapshot.links), ([name, href]) => el("a", { href, rel: "noreferrer" }, name));
  text($("model"), snapshot.service.model_version);
  $("model").parentNode.title = `Model ${snapshot.service.model_version}`;
  const version = [snapshot.mode.version, snapshot.mode.mode, snapshot.mode.shared, snapshot.redis, snapshot.service.model_version].join();
  if (version !== seenVersion || Date.now() - reread > REREAD_MS) {
    seenVersion = version;
    rereadRest();
  }
}

/** A colour for each segment of the last minute, the busiest first; further ones share one. */
function segmentOrder() {
  const names = Object.entries(snapshot.traffic.segment).sort(([a, one], [b, other]) => other - one || (a < b ? -1 : 1));
  return names.slice(0, 4).map(([name], place) => [name, `c${place + 1}`]);
}

function showVerdict([level, head, rest]) {
  $("verdict").className = `verdict ${level}`;
  text($("verdict-head"), head);
  text($("verdict-rest"), rest);
}

function figure(name, value, note, level = "") {
  text($(`f-${name}`), value);
  $(`f-${name}`).className = `figure ${level}`;
  text($(`n-${name}`), note);
}

function showTiles(rows) {
  const lately = rows.slice(-10).filter(Boolean);
  const { traffic, queue, budget_ms: budget } = snapshot;
  const all = traffic.latency.all;
  const rate = lately.reduce((sum, row) => sum + row.answers, 0) / 10;
  figure("rate", rate >= 100 ? rate.toFixed(0) : rate.toFixed(1), `${traffic.answers} in the last minute`);
  for (const name of ["p50", "p95", "p99"]) {
    const value = all[`${name}_ms`];
    const level = value === null ? "" : value > budget ? "bad" : value > 0.75 * budget ? "warn" : "";
    figure(name, ms(value), value === null ? "no answers" : `${share(Math.round((100 * value) / budget) / 100)} of budget`, level);
  }
  const { full = 0, narrow = 0 } = traffic.rung;
  const byModel = traffic.answers ? (full + narrow) / traffic.answers : null;
  figure("model", share(byModel), traffic.late ? `${traffic.late} late` : "none late", byModel !== null && byModel < 0.95 ? "warn" : "");
  figure("queue", queue.depth, `${queue.inflight} in progress`);
  figure("cache", share(traffic.cache.hit_share), `${traffic.events_per_s} events/s`);
}

/** Fills a table; existing rows are kept, and only their text changes. */
function fill(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, place) => {
    const row = body.rows[place] || body.insertRow();
    cells.forEach(([shown, level], at) => {
      if (!row.children[at]) row.append(el(at ? "td" : "th", at ? { class: "number" } : { scope: "row" }));
      text(row.children[at], shown);
      if (at) row.children[at].className = `number ${level || ""}`;
    });
  });
}

function showSources() {
  const { latency: by, reason } = snapshot.traffic;
  const names = ["all", "gpt4rec", "item_cf", "popular", ...(by.repeat ? ["repeat"] : [])];
  fill($("sources"), names.map((name) => {
    const one = by[name] || { answers: 0, p50_ms: null, p95_ms: null, p99_ms: null };
    const hot = (value) => [ms(value), value !== null && value > snapshot.budget_ms ? "hot" : ""];
    return [[name], [one.answers], hot(one.p50_ms), hot(one.p95_ms), hot(one.p99_ms)];
  }));
  const reasons = Object.entries(reason).sort((one, other) => other[1] - one[1]).map(([name, count]) => `${name} ${count}`);
  text($("reasons"), reasons.length ? `Below the top rung: ${reasons.join(", ")}` : "No answers below the top rung.");
}

function showBurn() {
  const says = { latency: "Late", errors: "Failed", served: "Below the model" };
  fill($("burn"), Object.entries(snapshot.burn_rate).map(([objective, rates]) => [
    [says[objective] || objective],
    ...["1m", "5m", "1h"].map((window) => [rates[window].toFixed(rates[window] < 10 ? 2 : 0), rates[window] >= 14.4 ? "hot" : rates[window] > 1 ? "warm" : ""]),
  ]));
}

function showMode() {
  const { mode } = snapshot;
  text($("mode-name"), { auto: "Auto", fallback: "Fallback forced", model: "Model forced" }[mode.mode]);
  $("mode-name").className = mode.mode === "auto" ? "" : "warn-ink";
  showLeft();
  const by = mode.actor ? `${mode.actor}: ${mode.reason}` : "The guard chooses a rung for each request, by its deadline and the health of the model.";
  text($("mode-why"), by);
  $("mode-shared").className = `tag ${mode.shared ? "good" : "bad"}`;
  text($("mode-shared"), mode.shared ? "on every replica" : "here only");
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode.mode));
  }
}

function showLeft() {
  const left = snapshot?.mode.expires_in_s;
  const now = left === null || left === undefined ? null : Math.max(0, left - (Date.now() - heardAt) / 1000);
  text($("mode-left"), now === null ? "" : `${span(now)} left`);
}
setInterval(showLeft, 250);

function showBreaker() {
  const { breaker } = snapshot;
  const level = { closed: "good", half_open: "warn", open: "bad" }[breaker.state];
  $("breaker-state").className = `tag ${level}`;
  text($("breaker-state"), breaker.state.replace("_", " ") + (breaker.cause ? `: ${breaker.cause}` : ""));
  text($("breaker-share"), share(breaker.model_share));
  $("breaker-meter").style.width = `${100 * breaker.model_share}%`;
  $("breaker-meter").className = breaker.model_share < 1 ? "part" : "";
  const seen = breaker.attempts;
  text($("breaker-attempts"), seen ? `${seen.late_or_failed} of ${seen.total} attempts late or failed in ${seen.window_s} s; the breaker opens at ${share(seen.limit)}` : "");
}

function showParts() {
  const { service, queue } = snapshot;
  const facts = [
    ["Redis", snapshot.redis ? "works" : `unusable: ${snapshot.redis_meaning ?? "unknown"}`, snapshot.redis ? "good-ink" : "bad-ink"],
    ["Engine", service.engine ? "answers" : "stuck", service.engine ? "good-ink" : "bad-ink"],
    ["Workers", `${service.workers_answering} of ${service.workers}`, service.workers_answering < service.workers ? "bad-ink" : ""],
    ["Event loop lag", ms(queue.loop_lag_ms), queue.loop_lag_ms > 50 ? "warn-ink" : ""],
    ["Up for", span(service.uptime_s), ""],
    ["Release", `${service.version} (${service.git_commit.slice(0, 7)})`, ""],
  ];
  const list = $("parts");
  if (list.children.length !== 2 * facts.length) list.replaceChildren(...facts.flatMap(([name]) => [el("dt", {}, name), el("dd")]));
  facts.forEach(([, value, level], place) => {
    const shown = list.children[2 * place + 1];
    text(shown, value);
    shown.className = level;
  });
}

// -- audit, models, policies: read from time to time, and after every change

async function rereadRest() {
  reread = Date.now();
  const now = secret;
  const read = (path) => ask("GET", path, { secret: now }).catch(() => null);
  catalogue.read();
  const { query } = audit;
  const [changes, models, policies, earned, tried] = await Promise.all(
    [`ops/audit?limit=50&${query}`, "ops/models", "ops/policies", "ops/outcomes", "ops/experiments"].map(read));
  if (secret !== now) return;
  if (changes && query === audit.query) audit.show(changes);
  $("models-panel").hidden = !models;
  if (models) showModels(models);
  if (earned) outcomes.show(earned);
  if (tried) experiments.show(tried, models);
  if (policies) editor.show(policies);
}

/** Redraws a list only if its data changed, so that the reader does not lose the place. */
function redraw(list, data, make) {
  const now = JSON.stringify(data);
  if (list.dataset.shown === now) return;
  list.dataset.shown = now;
  list.replaceChildren(...data.map(make));
}

function showModels(models) {
  $("rollback").disabled = !models.previous;
  $("rollback").title = models.previous ? `Back to ${models.previous}` : "There is no previous version";
  const faults = [models.fault, ...(models.replicas || []).filter((one) => one.fault).map((one) => `${one.name}: ${one.fault}`)].filter(Boolean);
  $("models-fault").hidden = !faults.length;
  text($("models-fault"), [...new Set(faults)].join("; "));
  redraw($("models"), models.models, (one) => el("li", {},
    el("strong", { class: "mono" }, one.version),
    one.active ? el("span", { class: "tag good" }, "active")
      : el("button", { type: "button", disabled: !one.available, "aria-label": `Activate ${one.version}`, onclick: () => activate(one.version) }, "Activate"),
    el("span", { class: `small ${one.fault ? "bad-ink" : "quiet"}` }, one.fault || describe(one))));
}

function describe(model) {
  const made = model.created_at ? `created ${when(model.created_at)}` : "";
  const ndcg = Object.entries(model.metrics || {}).find(([name]) => name.toLowerCase().includes("ndcg"));
  const again = model.repeats ? "lists may hold seen items" : "";
  return [made, again, ndcg ? `${ndcg[0]} ${Number(ndcg[1]).toFixed(4)}` : ""].filter(Boolean).join(", ");
}

async function changed(done) {
  if (!done) return;
  const snapshot = await ask("GET", "ops/fallback", { secret }).catch(() => null);
  if (snapshot && !snapshot.shared) text($("mode-shared"), "here only");
  rereadRest();
}

const MODES = {
  auto: ["Return to auto?", "The model answers again, as far as deadlines and its health allow.", "Back to auto", "main"],
  fallback: ["Force the fallback?", "Every replica answers without the model: by the signals of the history, or by popularity.", "Force the fallback", "danger"],
  model: ["Force the model?", "Every replica uses the model, whatever the breaker and the budgets say. Answers may be late.", "Force the model", "danger"],
};
for (const button of document.querySelectorAll("[data-mode]")) {
  button.addEventListener("click", async () => {
    const mode = button.dataset.mode;
    const [title, what, go, look] = MODES[mode];
    changed(await confirm.ask({ title, what, go, look, expires: mode !== "auto", method: "PUT", path: "ops/fallback", body: { mode } }));
  });
}

async function activate(version) {
  const what = `${version} is verified and warmed up, then served by every replica. If anything is wrong with it, the present model stays.`;
  changed(await confirm.ask({ title: "Activate this model?", what, go: "Activate", look: "main", method: "POST", path: `ops/models/${encodeURIComponent(version)}/activate`, body: {} }));
}
$("rollback").addEventListener("click", async () => {
  const what = `${$("rollback").title}, on every replica.`;
  changed(await confirm.ask({ title: "Roll back?", what, go: "Roll back", look: "danger", method: "POST", path: "ops/models/rollback", body: {} }));
});

for (const button of document.querySelectorAll("[data-mix]")) {
  button.addEventListener("click", () => {
    kind = button.dataset.mix;
    for (const other of document.querySelectorAll("[data-mix]")) other.setAttribute("aria-pressed", String(other === button));
    if (snapshot) show();
  });
}

if (kept.get()) enter(kept.get());
else $("token").focus();
