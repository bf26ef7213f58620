"""Tables of `docs/reliability.md`, from the recorded figures. Pure: figures in, Markdown out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from loadtests.draw.tables import by_command, cell, markdown

Results = Mapping[str, Any]

RUNGS = {"full": "full", "narrow": "narrow", "item_cf": "item-CF", "popular": "popularity"}
GROUPS = {
    "redis": "Redis", "model": "The model and its artefact", "process": "The process", "client": "Clients",
    "clock": "Clocks",
}  # fmt: skip


def faults(found: Results) -> str:
    """Draws a table of the cost of each fault and a list of the promises; broken promises are bold in both."""
    entries: Mapping[str, Results] = found["faults"]
    known = [*GROUPS, *sorted({one["group"] for one in entries.values()} - set(GROUPS))]
    parts = [_verdict(entries)]
    for group in known:
        of_group = {name: one for name, one in entries.items() if one["group"] == group}
        if of_group:
            columns = ["fault", "requests", *RUNGS.values(), "late", "errors", "wrong", "events acknowledged", "lost",
                       "twice", "recovery, s", "holds"]  # fmt: skip
            table = markdown(columns, [_fault(name, one) for name, one in of_group.items()])
            promised = "\n".join(_promise(name, one) for name, one in of_group.items())
            parts.append(f"### {GROUPS.get(group, group)}\n\n{table}\n\n{promised}")
    return "\n\n".join([*parts, by_command(found)])


def _verdict(entries: Mapping[str, Results]) -> str:
    broken = [name for name, one in entries.items() if not one["holds"]]
    if not broken:
        return f"{len(entries)} faults, and every promise held."
    return f"{len(entries)} faults. **Promises were broken in {len(broken)} of them: {', '.join(broken)}.**"


def _fault(name: str, one: Results) -> list[Any]:
    answers, events = one["answers"], one["events"]
    return [
        name, one["requests"], *(answers.get(rung, 0) for rung in RUNGS), one["late"], sum(one["errors"].values()),
        one["wrong"], events.get("acknowledged"), events.get("lost"), events.get("twice"), one["recovery_s"],
        one["holds"],
    ]  # fmt: skip


def _promise(name: str, one: Results) -> str:
    said = f"- *{name}*: {_sentence(one['fault'])} Promised: {_sentence(one['promise'])}"
    if one["errors"]:
        said += f" Errors: {counted(one['errors'])}."
    for note in one.get("notes", ()):
        said += f" {_sentence(note)}"
    if one["broken"]:
        said += f" **Broken: {_sentence('; '.join(one['broken']))}**"
    return said


def overload(found: Results) -> str:
    """Draws how far the model was slowed, and the run at each multiple of its capacity."""
    floor, capacity, slowed = found["floor"]["rate"], found["capacity"]["rate"], found["slowed"]
    lead = (
        f"With the fallback forced, the service answers {cell(floor)} requests/s within the budget "
        f"of {found['budget_ms']:g} ms. Slowed by {slowed['run_ms']:g} ms a run and {slowed['row_ms']:g} ms a row, "
        f"the model has a capacity of {cell(capacity)} requests/s, {cell(100.0 * capacity / floor)} % of that. "
        f"{found['users']:,} users."
    )
    alone = found["runs"][0]["model_rate"]
    rows = [
        [f"{one['times']} ×", *_answers(one), one["model_rate"], f"{cell(100.0 * one['model_rate'] / alone)} %",
         one["attempts"].get("late", 0), len(one["changes"])]
        for one in found["runs"]
    ]  # fmt: skip
    columns = ["load", *_ANSWERS, "model lists/s", "of 1 ×", "late attempts", "breaker changes"]
    reasons = "\n".join(f"- {one['times']} ×: {counted(one['reasons']) or 'none'}." for one in found["runs"])
    return "\n\n".join([lead, markdown(columns, rows), f"Reasons given:\n\n{reasons}", _unslowed(found)])


_ANSWERS = [
    "requests/s",
    "requests",
    "sent late",
    "errors",
    "within the budget",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    *RUNGS.values(),
]


def _answers(one: Results) -> list[Any]:
    latency = one["latency_ms"]
    return [
        one["offered_rate"], one["requests"], f"{one['generator']['late_share']:.2%}", sum(one["errors"].values()),
        f"{one['within_budget']:.2f} %",
        latency["p50"], latency["p99"], latency["p99.9"], *(one["rungs"].get(rung, 0) for rung in RUNGS),
    ]  # fmt: skip


def _unslowed(found: Results) -> str:
    """Draws the model at its own speed, and what failed first."""
    runs = found["unslowed"]
    rows = [
        [f"{100.0 * one['share_of_floor']:.0f} %", *_answers(one), one["service_cores"],
         one["generator"]["cpu_share"], len(one["changes"])]
        for one in runs
    ]  # fmt: skip
    columns = ["of the floor", *_ANSWERS, "cores: service", "generator", "breaker changes"]
    reasons = "\n".join(
        f"- {100.0 * one['share_of_floor']:.0f} %: {counted(one['reasons']) or 'none'}"
        + (f"; errors: {counted(one['errors'])}." if one["errors"] else ".")
        for one in runs
    )
    table = markdown(columns, rows)
    return (
        f"The model at its own speed:\n\n{table}\n\nReasons given:\n\n{reasons}\n\n{_first(runs)} {by_command(found)}"
    )


def _first(runs: Sequence[Results]) -> str:
    """Says what fails first, as far as the figures show it."""
    below = next((one for one in runs if _below(one) > 0.01), None)
    burst = next((one for one in runs if not one["holds"]), None)
    said = ""
    if below is not None:
        said = (
            f"From {cell(below['offered_rate'])} requests/s on, more than one list in a hundred comes from a rung "
            "below the model. "
        )
    if burst is None:
        return said + "The service sustained every rate that was tried."
    why = counted(burst["errors"]) or f"p99 is {cell(burst['latency_ms']['p99'])} ms"
    return said + (
        f"The service fails at {cell(burst['offered_rate'])} requests/s: {why}, while its process uses "
        f"{cell(burst['service_cores'])} cores and the generator {cell(burst['generator']['cpu_share'])}."
    )


def _below(one: Results) -> float:
    by_model = one["rungs"].get("full", 0) + one["rungs"].get("narrow", 0)
    return float(1.0 - by_model / max(1, one["answered"]))


def breach(found: Results) -> str:
    """Draws how soon traffic moved, how soon it was back, and every change of the breaker."""
    columns = ["breach", "moved below the model after, s", "back after, s", "full after, s", "changes of side",
               "requests", "errors", "within the budget", *RUNGS.values()]  # fmt: skip
    rows = [
        [name, one["moved_s"], one["back_s"], one["full_s"], one["turns"], one["requests"], sum(one["errors"].values()),
         f"{one['within_budget']:.2f} %", *(one["rungs"].get(rung, 0) for rung in RUNGS)]
        for name, one in found["breaches"].items()
    ]  # fmt: skip
    runs = "\n".join(
        f"- *{name}*: {one['fault']}, from {one['moments']['fault']:.0f} s to {one['moments']['healed']:.0f} s. "
        f"Reasons: {counted(one['reasons'])}. Breaker: {_changes(one['changes'])}."
        for name, one in found["breaches"].items()
    )
    lead = f"{cell(found['rate'])} requests/s throughout."
    return "\n\n".join([lead, markdown(columns, rows), runs, by_command(found)])


def _changes(changes: Sequence[Results]) -> str:
    said = ", ".join(f"{one['breaker'].replace('_', ' ')} at {one['at']:.1f} s" for one in changes)
    return said or "closed throughout"


def hostile(found: Results) -> str:
    """Draws what the lists of others cost beside each kind of hostile request, and what became of these."""
    rows = [
        [name, one["sent"], one["calm"]["latency_ms"]["p99"], one["hostile"]["latency_ms"]["p99"], one["ratio"],
         sum(one["hostile"]["errors"].values()), *(one["hostile"]["rungs"].get(rung, 0) for rung in RUNGS),
         one["before_mib"], one["peak_mib"], one["grows_max_mib"]]
        for name, one in found["kinds"].items()
    ]  # fmt: skip
    columns = ["hostile requests", "sent", "others' p99 without, ms", "with, ms", "ratio", "errors", *RUNGS.values(),
               "memory before, MiB", "at most, MiB", "may grow by, MiB"]  # fmt: skip
    said = "\n".join(
        f"- *{name}*: {_sentence(one['text'])} Answered: {_sentence(counted(one['outcomes']) or 'none')}"
        for name, one in found["kinds"].items()
    )
    lead = (
        f"{found['others_rate']:g} lists/s of others throughout, {found['hostile_rate']:g} hostile requests a second. "
        f"The others' p99 may be {found['ratio_max']:g} times theirs without."
    )
    return "\n\n".join([lead, markdown(columns, rows), said, by_command(found)])


def toggle(found: Results) -> str:
    """Draws how soon a change reached both replicas, by message or by poll; a restart; Redis frozen and down."""
    kinds = {"sent": "by the message", "lost": "message lost: by the poll"}
    rows = []
    for kind, text in kinds.items():
        trials = [one for one in found["trials"] if one["message"] == kind]
        took = toggle_s(trials)
        if took:
            within = sum(s <= found["limit_s"] for s in took)
            old = sum(one["old_afterwards"] for one in trials)
            rows.append([text, len(trials), within, median(took), max(took), sum(math.isinf(s) for s in took), old])
    columns = ["change", "trials", f"within {found['limit_s']:g} s", "p50, s", "max, s", "never reached",
               "lists by the old mode after that"]  # fmt: skip
    restart, frozen, away = found["restart"], found["frozen"], found["away"]
    kept = _yes(all(restart["first_lists_forced"]))
    said = "\n".join(
        [
            f"- Killed and restarted: the first list of each replica followed the mode set before: {kept}.",
            f"- Redis frozen: the change was answered after {cell(frozen['put_s'])} s, "
            f"{'as shared' if frozen['shared'] else 'as local only'}; both replicas followed it "
            f"{cell(frozen['agreed_s'])} s after Redis was back.",
            "- Redis down, and a change on each replica: both agreed "
            f"{cell(away['agreed_s'])} s after Redis was back, on the later change: "
            f"{_yes(all(mode == away['modes'][0] for mode in away['modes']))}.",
        ]
    )
    return "\n\n".join([markdown(columns, rows), said, by_command(found)])


def toggle_s(trials: Sequence[Results]) -> list[float]:
    """Returns, sorted, the seconds until both replicas followed the new mode; infinite if one never did."""
    return sorted(max(math.inf if s is None else s for s in one["reached_s"]) for one in trials)


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def counted(kinds: Mapping[str, int]) -> str:
    """Formats counts, the most frequent first."""
    return ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items(), key=lambda one: (-one[1], one[0])))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


SECTIONS: dict[str, Callable[[Results], str]] = {
    "faults": faults,
    "overload": overload,
    "breach": breach,
    "hostile": hostile,
    "toggle": toggle,
}
