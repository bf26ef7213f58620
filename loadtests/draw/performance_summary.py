"""The summary at the top of `docs/performance.md`, from the recorded figures. Pure: figures in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests.common import limit_criteria
from loadtests.draw import engine_changes
from loadtests.draw.tables import NOT_YET, cell, limits, markdown

Rows = Sequence[Mapping[str, Any]]
Files = Mapping[str, Mapping[str, Any] | None]

# What the table of headline figures shows: criterion → the question it answers.
HEADLINES = {
    "2 rps at p99 ≤ 50 ms": "Highest rate with p99 ≤ 50 ms",
    "1 cpu": "Processor time of a warm `/recommend` ÷ (bare typed FastAPI route + one decoder run)",
    "3 decode p50 at 1M / at 10k": "Decoder p50 with 1,000,000 items ÷ with 10,000",
    "3 constraint on / off": "Decoder graph with the catalogue constraint ÷ without",
    "4 history p50": "`/recommend` p50 with 2,000 events in the history ÷ with 50",
    "4 history event": "Processor time of one event with 2,000 events before it ÷ with 50",
    "5 redis flood": "Redis memory of one user after a flood of events",
    "6 reflected": "Acknowledged events that the next list of another replica reflects",
    "6 reflected p99": "From the acknowledgement to a list that reflects it, p99",
    "7 start": "From exec to ready",
    "8 soak /recommend p99": "`/recommend` p99 in five minutes of replay at 70 % of capacity",
    "8 soak errors": "Errors in the same replay",
    "8 soak growth": "Growth of resident memory in its second half",
}
# The same for the peers: criterion → the system that gpt4rec is compared with.
PEERS = {
    "2 rps / FastAPI + thread": "FastAPI with a thread pool",
    "2 rps / FastAPI + thread, decode only": "FastAPI with a thread pool, decode only",
    "2 rps / best of LitServe and BentoML": "LitServe or BentoML, the faster of the two",
    "2 rps / LitServe, decode only": "LitServe, decode only",
    "2 rps / BentoML, decode only": "BentoML, decode only",
    "2 rps / torch eager, hypothesis by hypothesis": "Torch, eager, one hypothesis at a time",
    "2 rps / torch eager, batched over the beam": "Torch, eager, batched over the beam",
    "2 rps / HF generate": "Hugging Face `generate`, GPT-2 of the same size",
}


def figures(rows: Rows, _: Files) -> str:
    """Draws a line for each headline criterion that was measured."""
    lines = [
        [question, f"{cell(row['value'])} {'×' if row['unit'] == 'ratio' else row['unit']}", row["limit"], row["holds"]]
        for question, row in _of(rows, HEADLINES)
    ]
    return markdown(["what", "figure", "limit", "holds"], lines) if lines else NOT_YET


def peers(rows: Rows, files: Files) -> str:
    """Draws how many times the rate of each peer gpt4rec reaches, and the peers that are ahead in a closed loop."""
    lines = [[name, f"{cell(row['value'])} ×", row["limit"], row["holds"]] for name, row in _of(rows, PEERS)]
    compared = files.get("peers")
    if not lines and compared is None:
        return NOT_YET
    table = [markdown(["system", "gpt4rec serves", "limit", "holds"], lines)] if lines else []
    return "\n\n".join([*table, *_ahead(compared)])


def _of(rows: Rows, shown: Mapping[str, str]) -> list[tuple[str, Mapping[str, Any]]]:
    by_criterion = {row["criterion"]: row for row in rows}
    return [(text, by_criterion[name]) for name, text in shown.items() if name in by_criterion]


def _ahead(measured: Mapping[str, Any] | None) -> list[str]:
    """Names the peers whose closed-loop rate is above that of gpt4rec."""
    rates = [
        (system["name"], system["variant"], system["wrk"]["rps"])
        for system in (measured or {"systems": []})["systems"]
        if system.get("wrk")
    ]
    own = max((rate for name, _, rate in rates if name == "gpt4rec"), default=None)
    if own is None:
        return []
    faster = [f"{name}, {variant} ({cell(rate)})" for name, variant, rate in rates if rate > own]
    if not faster:
        return [f"In wrk's closed loop of eight connections no peer is faster than gpt4rec ({cell(own)} requests/s)."]
    return [
        f"In wrk's closed loop of eight connections gpt4rec reaches {cell(own)} requests/s; faster there: "
        f"{'; '.join(faster)}."
    ]


def missed(rows: Rows, _: Files) -> str:
    """Draws how many criteria hold, and every one that does not."""
    return limits(rows) or NOT_YET


def at_the_limit(rows: Rows, _: Files) -> str:
    """Draws every criterion `limit …`, measured or not."""
    measured = limit_criteria.of_limits(rows)
    lines = []
    for name, criterion in limit_criteria.CRITERIA.items():
        row = measured.get(name)
        figure, holds = "*not measured*", None
        if row is not None:
            figure, holds = f"{cell(float(row['value']))} {row['unit']}", row["holds"]
        lines.append([f"{name}: {criterion.reading}", figure, criterion.limit, criterion.aim, holds])
    return markdown(["criterion, and what is read for it", "figure", "limit", "goal", "holds"], lines)


def changed(rows: Rows, files: Files) -> str:
    """Draws each figure of before beside the one of now, and what changed."""
    before = files.get("engine_before")
    if before is None:
        return NOT_YET
    now = {row["criterion"]: row for row in rows}
    lines = [
        [
            old["criterion"],
            f"{cell(float(old['value']))} {old['unit']}",
            _again(old, now.get(old["criterion"])),
            engine_changes.CHANGES.get(old["criterion"], ""),
        ]
        for old in before["rows"]
    ]
    return markdown(["figure", "before", "now", "what changed"], lines)


def _again(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> str:
    """Returns the newer figure, if there is one."""
    if new is None or new["date"] == old["date"]:
        return "*not measured again*"
    return f"{cell(float(new['value']))} {new['unit']}"


SUMMARY: dict[str, Callable[[Rows, Files], str]] = {
    "summary_figures": figures,
    "summary_peers": peers,
    "summary_missed": missed,
    "summary_limits": at_the_limit,
    "summary_changed": changed,
}
