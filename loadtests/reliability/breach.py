"""Breaches of the error budgets under steady load: `python -m loadtests.reliability.breach --artifact DIR`.

The model becomes slow, or fails. Each fault meets a fresh service under one open-loop load: a healthy phase, the fault,
and the time after its end. Writes rows of `reliability.json`, and `breach.json` with the answers of each half second
and the state of the guard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtests.common import results
from loadtests.harness.bench import Bench
from loadtests.harness.faulty_model import faulty
from loadtests.load.open_loop_driver import Record, drive_now
from loadtests.reliability import stress
from loadtests.reliability.stress import CONNECTIONS, MODEL_RUNGS
from service.cli.outermost import run_command

RATE = 120.0
HEALTHY_S, BROKEN_S, AFTER_S = 20, 40, 90
STEP_S = 0.5
# Traffic has moved, or is back, when this share of the answers of a step and of the stretch it begins comes from there.
BELOW, BACK, STRETCH_S = 0.9, 0.95, 5.0
MOVED_WITHIN_S, BACK_WITHIN_S = 15.0, 90.0


@dataclass(frozen=True, slots=True)
class Breach:
    """A fault of the model and its expected effect.

    Attributes:
        name: Name of the breach in the rows.
        text: What happens, for the document.
        faults: Fields of `loadtests.harness.faulty_model.Faults`.
        reason: Reason that the answers must give.
    """

    name: str
    text: str
    faults: Mapping[str, float]
    reason: str


BREACHES = (
    Breach("latency breach", "two runs in five take 120 ms longer", {"run_ms": 120.0, "slow_share": 0.4},
           "latency_budget"),
    Breach("error breach", "two runs in five fail", {"raise_share": 0.4}, "error_budget"),
)  # fmt: skip


def run(bench: Bench) -> None:
    """Measures both breaches and saves them."""
    found = {breach.name: _breach(bench, breach) for breach in BREACHES}
    bench.save("breach", {"budget_ms": stress.BUDGET_MS, "rate": RATE, "step_s": STEP_S, "breaches": found})


def _breach(bench: Bench, breach: Breach) -> dict[str, Any]:
    healthy, broken = bench.some(HEALTHY_S, 6), bench.some(BROKEN_S, 15)
    seconds = healthy + broken + bench.some(AFTER_S, 60)
    record = Record()
    with faulty(bench.artifact, **stress.OPS) as (service, control):
        users = stress.crowd(bench, service.url)
        arrivals = users.arrivals(RATE, seconds, 0)
        actions = [(float(healthy), "fault", lambda: control.set(**breach.faults)),
                   (float(healthy + broken), "healed", control.set)]  # fmt: skip
        with stress.watched(service.url, actions, every_s=STEP_S) as watch:
            drive_now(service.url, arrivals, warmup_s=0.0, connections=CONNECTIONS, record=record)
    steps = stress.seconds_of(record.answers, seconds, step_s=STEP_S)
    moments = {name: round(at - record.began, 3) for at, name in watch.done}
    found = {
        "fault": breach.text,
        "reason": breach.reason,
        **stress.tally(record.answers, seconds),
        "moments": moments,
        **judged(steps, moments["fault"], moments["healed"]),
        "changes": watch.changes(record.began),
        "each_step": steps,
        "guard": watch.since(record.began),
    }
    rows(bench, breach, found)
    return found


def rows(bench: Bench, breach: Breach, found: Mapping[str, Any]) -> None:
    """Records a row for each promise.

    What never happened is recorded as the length of the run, so that the row does not hold.
    """
    name = f"4 {breach.name}"
    promises = {"moved below the model": ("moved_s", MOVED_WITHIN_S), "back by itself": ("back_s", BACK_WITHIN_S),
            "full lists again": ("full_s", BACK_WITHIN_S)}  # fmt: skip
    for what, (key, limit) in promises.items():
        after = found["seconds"] if found[key] is None else found[key]
        bench.row(f"{name}: {what}", after, "s", at_most=limit)
    bench.row(f"{name}: changes of side", found["turns"], "once there, once back", at_most=2)
    named = found["reasons"].get(breach.reason, 0)
    bench.row(f"{name}: answers that name it", named, f"say {breach.reason}", at_least=1)
    failed = found["requests"] - found["answered"]
    bench.row(f"{name}: errors", failed, f"of {found['requests']:,} requests", at_most=0)
    bench.row(f"{name}: within the budget", found["within_budget"], "% of requests")


def judged(steps: Sequence[Mapping[str, Any]], fault_s: float, healed_s: float) -> dict[str, Any]:
    """Measures how traffic moved below the model and back.

    Args:
        steps: Answers of each step of `STEP_S` seconds, by rung.
        fault_s: Begin of the fault, seconds from the start.
        healed_s: End of the fault, seconds from the start.

    Returns:
        `moved_s`: seconds from the fault until traffic was below the model. `back_s` and `full_s`: seconds from the end
        of the fault until traffic was back on the model, and back on the rung "full" (None if never). `turns`: how
        often the majority of the answers changed sides, from the fault on.
    """
    wide = round(STRETCH_S / STEP_S)
    fault, healed = int(fault_s / STEP_S), int(healed_s / STEP_S)

    def first(start: int, end: int, holds: Callable[[float], bool], rungs: Collection[str]) -> int | None:
        """Finds the first step that holds, as does the whole stretch that it begins."""
        for n in range(start, min(end, len(steps) - wide + 1)):
            if all(holds(_share(steps[n : n + length], rungs) or 0.0) for length in (1, wide)):
                return n
        return None

    moved = first(fault, healed, lambda share: share <= 1.0 - BELOW, MODEL_RUNGS)
    back = first(healed, len(steps), lambda share: share >= BACK, MODEL_RUNGS)
    whole = first(healed, len(steps), lambda share: share >= BACK, ("full",))
    # From the last healthy step on: the first move counts as a change too.
    shares = [_share([step], MODEL_RUNGS) for step in steps[max(0, fault - 1) :]]
    sides = [share >= 0.5 for share in shares if share is not None]
    return {
        "moved_s": _after(moved, fault_s),
        "back_s": _after(back, healed_s),
        "full_s": _after(whole, healed_s),
        "turns": sum(a != b for a, b in pairwise(sides)),
    }


def _after(step: int | None, moment_s: float) -> float | None:
    return None if step is None else max(0.0, round(step * STEP_S - moment_s, 1))


def _share(steps: Sequence[Mapping[str, Any]], rungs: Collection[str]) -> float | None:
    """Returns the share of the answers that came from these rungs; None without answers."""
    counted: Counter[str] = Counter()
    for step in steps:
        counted.update(step["rungs"])
    return sum(counted[rung] for rung in rungs) / counted.total() if counted else None


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[bool, typer.Option(help="Shorter phases, to try the command; records no figures.")] = False,
) -> None:
    """Breaches the latency budget and the error budget of fresh services, and ends the faults."""
    run(stress.bench_of("breach", artifact, out, quick=quick))


if __name__ == "__main__":
    run_command(main)
