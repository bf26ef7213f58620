"""Hostile requests beside others: `python -m loadtests.reliability.hostile [KIND] --artifact DIR`.

A thousand requests of each kind (`hostile_requests`), ten a second, meet a fresh service that answers 40 lists a second
of others. In one run a calm phase, the hostile one, and a second calm phase follow each other, so that the latencies
that are compared are of the same service on the same machine. Writes rows of `reliability.json`, and `hostile.json`,
after each kind; a repeated kind replaces its own figures.

The criterion, written before the first run: with hostile requests the p99 of the others' lists is at most 1.5 times
theirs without, none of them is an error, and the memory of the service stays within the bound of docs/security.md.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtests.common import results
from loadtests.common.hdr import Latencies
from loadtests.common.meanwhile import meanwhile
from loadtests.harness.bench import Bench, settle
from loadtests.harness.served_process import Process, Served, serve
from loadtests.load.open_loop_driver import Answer, Record, drive_now
from loadtests.reliability import stress
from loadtests.reliability.hostile_requests import KINDS, Kind, sent
from service.cli.outermost import run_command

OTHERS_RATE = 40.0
HOSTILE_RATE, HOSTILE_COUNT = 10.0, 1000
RATIO_MAX = 1.5
NAMES = tuple(kind.name for kind in KINDS)
_LEAD_S = 3.0  # counts as neither phase
_SAMPLE_S = 0.1
# Answers of the service to hostile requests may take as long as a client may take to send one.
_AFTER_S = 12


def run(bench: Bench, kinds: Sequence[Kind] = KINDS) -> None:
    """Measures kinds and saves each."""
    about = {"others_rate": OTHERS_RATE, "hostile_rate": HOSTILE_RATE, "ratio_max": RATIO_MAX}
    for kind in kinds:
        before = (results.load("hostile", bench.results) or {}).get("kinds", {})
        bench.save("hostile", {**about, "kinds": {**before, kind.name: _kind(bench, kind)}})


def _kind(bench: Bench, kind: Kind) -> dict[str, Any]:
    count = bench.some(HOSTILE_COUNT, 20)
    hostile_s = count / HOSTILE_RATE
    calm_s = hostile_s / 2.0  # before, and again after
    after_s = bench.some(_AFTER_S, 3)
    length_s = _LEAD_S + calm_s + hostile_s + after_s + calm_s
    record, memory = Record(), _Memory()
    with serve(bench.artifact, **stress.OPS) as service:
        users = stress.crowd(bench, service.url)
        settle(service)
        arrivals = users.arrivals(OTHERS_RATE, length_s, 0)
        begins_at = time.monotonic() + _LEAD_S + calm_s
        with (
            meanwhile(lambda over: memory.watch(over, service, begins_at)),
            sent(kind, service.url, bench.artifact, begins_at=begins_at, rate=HOSTILE_RATE, count=count) as outcomes,
        ):
            drive_now(service.url, arrivals, warmup_s=0.0, connections=stress.CONNECTIONS, record=record)
        alive = service.alive()
    begin = begins_at - (time.monotonic() - time.perf_counter()) - record.began
    found = {
        "text": kind.text,
        "sent": count,
        "outcomes": dict(Counter(outcomes).most_common()),
        "grows_max_mib": kind.grows_mib,
        **memory.figures(),
        "alive": alive,
        **judged(record.answers, begin, begin + hostile_s, lead_s=_LEAD_S, after_s=after_s),
    }
    rows(bench, kind, found)
    return found


def judged(answers: Sequence[Answer], begin_s: float, end_s: float, *, lead_s: float, after_s: float) -> dict[str, Any]:
    """Compares the others' lists of the hostile phase with those of the calm phases around it.

    Args:
        answers: The others' answers.
        begin_s: When the first hostile request was due, seconds from the start.
        end_s: When the last was due.
        lead_s: Length of the beginning, which counts as neither.
        after_s: What follows the hostile phase and counts as neither: hostile requests are still being answered.

    Returns:
        `calm` and `hostile`: latencies in ms, rungs and errors of the phase; `ratio`: of their p99.
    """
    calm = [one for one in answers if lead_s <= one.due_s < begin_s or one.due_s >= end_s + after_s]
    hostile = [one for one in answers if begin_s <= one.due_s < end_s]
    phases = {"calm": _phase(calm), "hostile": _phase(hostile)}
    before, beside = (phases[name]["latency_ms"]["p99"] for name in ("calm", "hostile"))
    return {**phases, "ratio": beside / before if before and beside else None}


def _phase(answers: Sequence[Answer]) -> dict[str, Any]:
    good = [one for one in answers if one.status == 200]
    return {
        "requests": len(answers),
        "errors": dict(Counter(f"{one.label} {one.status}" for one in answers if one.status != 200)),
        "rungs": dict(Counter(one.rung for one in good if one.rung is not None)),
        "latency_ms": Latencies((one.took_s or 0.0) * 1e3 for one in good).figures(),
    }


def rows(bench: Bench, kind: Kind, found: Mapping[str, Any]) -> None:
    """Records a row for each promise."""
    name = f"5 hostile {kind.name}"
    ratio = found["ratio"]
    # Without an answer there is no ratio: the row must not hold.
    bench.row(f"{name}: others' p99", 1e9 if ratio is None else ratio, "× theirs without", at_most=RATIO_MAX)
    errors = sum(found["hostile"]["errors"].values())
    bench.row(f"{name}: others' errors", errors, f"of {found['hostile']['requests']:,} requests", at_most=0)
    bench.row(f"{name}: memory", found["peak_mib"] - found["before_mib"], "MiB more", at_most=found["grows_max_mib"])
    twice = sum(many for outcome, many in found["outcomes"].items() if " " in outcome and outcome[0].isdigit())
    bench.row(f"{name}: answered twice", twice, f"of {found['sent']:,} hostile requests", at_most=0)


class _Memory:
    """Resident memory of the service and of its embedded store, in MiB: before the hostile requests, and at most."""

    def __init__(self) -> None:
        self._before = self._peak = 0.0

    def watch(self, over: threading.Event, service: Served, begins_at: float) -> None:
        """Samples until `over`."""
        processes: list[Process] = [service, *([service.valkey] if service.valkey else [])]
        while not over.wait(_SAMPLE_S):
            with suppress(OSError):
                now = sum(process.rss_mib() for process in processes)
                if time.monotonic() < begins_at:
                    self._before = max(self._before, now)
                self._peak = max(self._peak, now)

    def figures(self) -> dict[str, float]:
        return {"before_mib": round(self._before, 1), "peak_mib": round(self._peak, 1)}


def main(
    what: Annotated[str, typer.Argument(metavar="[KIND]", help=f"all, or one of {', '.join(NAMES)}.")] = "all",
    *,
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[bool, typer.Option(help="A few requests, to try the command; records no figures.")] = False,
) -> None:
    """Sends hostile requests of each kind beside the lists of others."""
    kinds = [kind for kind in KINDS if what in ("all", kind.name)]
    if not kinds:
        raise typer.BadParameter(f"all, or one of {', '.join(NAMES)}", param_hint="KIND")
    run(stress.bench_of("reliability.hostile", artifact, out, quick=quick), kinds)


if __name__ == "__main__":
    run_command(main)
