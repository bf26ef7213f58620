// Formats figures, and sums up the state of the service in one sentence.

export const ms = (value) => (value === null || value === undefined ? "–" : value < 10 ? `${value.toFixed(1)} ms` : `${value.toFixed(0)} ms`);

export const share = (value) => {
  if (value === null || value === undefined) return "–";
  const percent = 100 * value;
  return `${percent > 0 && percent < 10 && percent % 1 ? percent.toFixed(1) : percent > 99 && percent < 100 ? (Math.floor(percent * 10) / 10).toFixed(1) : percent.toFixed(0)} %`;
};

/** Formats a duration in seconds. */
export function span(seconds) {
  const s = Math.ceil(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} days`;
}

/** Formats a local time; adds the date unless it is today. */
export function when(iso) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return iso;
  const time = at.toLocaleTimeString([], { hour12: false });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}`;
}

/** Returns [level, head, rest]: what is wrong, the worst first, or that all is well. */
export function verdict(snapshot) {
  const { mode, breaker, service, traffic, budget_ms: budget, burn_rate: burn } = snapshot;
  const found = [];
  const add = (level, says) => found.push([level, says]);
  if (!service.engine) add("bad", "the engine is stuck");
  if (service.workers_answering < service.workers) add("bad", `${service.workers - service.workers_answering} of ${service.workers} workers do not answer`);
  if (!snapshot.redis) add("bad", `Redis cannot be used (${snapshot.redis_meaning ?? "unknown"}): events are refused`);
  if (snapshot.files_hang?.length) add("bad", `files hang: ${snapshot.files_hang.join(", ")}`);
  if (breaker.state === "open") add("bad", `the breaker is open (${breaker.cause})`);
  if (breaker.state === "half_open") add("warn", `the breaker is half-open, the model gets ${share(breaker.model_share)}`);
  if (!mode.shared && mode.version) add("bad", `the mode ${mode.mode} applies on this replica only until Redis is back`);
  if (mode.mode !== "auto") add("warn", `${mode.mode} is forced by ${mode.actor}`);
  const p99 = traffic.latency.all.p99_ms;
  if (p99 !== null && p99 > budget) add("warn", `p99 is above the budget of ${ms(budget)}`);
  const says = { latency: "late answers", errors: "failures", served: "answers from below the model" };
  for (const [objective, rates] of Object.entries(burn)) {
    if (mode.mode === "fallback" && objective === "served") continue; // intended
    if (rates["1m"] >= 14.4 && rates["5m"] >= 14.4) add("bad", `${says[objective]} use up their budget ${rates["5m"].toFixed(0)} times too fast`);
    else if (rates["5m"] > 1) add("warn", `${says[objective]} are above their budget`);
  }
  if (traffic.failed) add("bad", `${traffic.failed} requests failed in the last minute`);
  const drifted = Object.values(snapshot.watch?.over || {}).flat();
  if (drifted.length) add("warn", `lists or traffic drift (${[...new Set(drifted.map((one) => one.statistic))].join(", ")})`);
  if (service.draining) add("warn", "this process is shutting down");
  if (!found.length) {
    return traffic.answers ? ["good", "All is well.", "The model answers within the budget."] : ["quiet", "Idle.", "All is well, and there are no requests."];
  }
  found.sort((one, other) => (one[0] === "bad" ? 0 : 1) - (other[0] === "bad" ? 0 : 1));
  const [level] = found[0];
  return [level, level === "bad" ? "Action needed:" : "Attention:", `${found.map(([, words]) => words).join("; ")}.`];
}
