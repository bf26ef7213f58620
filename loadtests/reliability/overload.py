"""More load than the model, and than HTTP, can sustain: `python -m loadtests.reliability.overload --artifact DIR`.

1. the floor: the highest rate with the fallback forced, no errors and p99 within the budget
2. a model slowed down until its capacity (99 % full lists within the budget) is at most a twentieth of the floor, so
   that neither the generator nor HTTP limits what follows
3. 1, 2, 5 and 10 times that capacity, a minute each
4. the model at its own speed, with rates that rise until HTTP itself fails

The slowed model sleeps for a time by run and a time by row. Writes rows of `reliability.json`, and `overload.json`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtests.common import results
from loadtests.harness.bench import Bench
from loadtests.harness.faulty_model import misbehaving
from loadtests.harness.served_process import Served
from loadtests.load.capacity import Capacity, Step, capacity
from loadtests.load.open_loop_driver import Arrival, Record, drive_now
from loadtests.reliability import stress
from loadtests.reliability.stress import BUDGET_MS, CONNECTIONS, Crowd
from service.cli.outermost import run_command

TIMES = (1, 2, 5, 10)
SECONDS = 60
SHARE_OF_FLOOR = 0.05
FULL_SHARE = 0.99
# A slow-down is good enough if the capacity reaches this share of the limit; a slower model would show less.
_CLOSE = 0.5
_FIRST_MS = 8.0
_TRIES = 6
# The last rates are meant to be too high.
RISING = (0.25, 0.5, 0.7, 0.85, 1.0, 1.15, 1.4)


def run(bench: Bench) -> None:
    """Runs all four parts.

    Each overload and each rising rate meets a fresh service that is slowed from its start, so that neither the guard's
    memory of the previous run nor a model that just became slow is measured.
    """
    with _served(bench) as (service, users):
        stress.force(service.url, "fallback")
        floor = _capacity(bench, service, users, low=200.0, seconds=bench.some(4, 1))
        stress.force(service.url, "auto")
        if floor.rate <= 0.0:
            raise RuntimeError("the service sustains no load with the fallback forced")
    slowed, alone = slow_down(bench, SHARE_OF_FLOOR * floor.rate)
    bench.row("1 overload floor", floor.rate, "requests/s with the fallback forced")
    bench.row("1 overload capacity", alone.rate, "requests/s of the slowed model")
    bench.row("1 overload capacity of the floor", 100.0 * alone.rate / floor.rate, "%", at_most=5.0)
    runs = [overloaded(bench, slowed, times, alone.rate) for times in TIMES]
    judge(bench, runs)
    rising = [risen(bench, floor.rate, share) for share in (RISING[1::3] if bench.quick else RISING)]
    judge_rising(bench, rising)
    bench.save(
        "overload",
        {
            "budget_ms": BUDGET_MS,
            "users": len(users.bodies),
            "floor": floor.json(),
            "slowed": slowed,
            "capacity": alone.json(),
            "runs": runs,
            "unslowed": rising,
        },
    )


@contextmanager
def _served(bench: Bench, **slowed: float) -> Iterator[tuple[Served, Crowd]]:
    with misbehaving(bench.artifact, slowed, **stress.OPS) as (service, _):
        yield service, stress.crowd(bench, service.url)


def slow_down(bench: Bench, most: float) -> tuple[dict[str, float], Capacity]:
    """Slows the model down until its capacity is at most `most` requests a second.

    Returns:
        The faults that slow the model, and the capacity measured with them.

    Raises:
        RuntimeError: If none of the tried slow-downs gives such a capacity.
    """
    each = _FIRST_MS
    for _ in range(_TRIES):
        slowed = {"run_ms": round(each, 2), "row_ms": round(each, 2)}
        with _served(bench, **slowed) as (service, users):
            found = _capacity(bench, service, users, low=most / 2, seconds=bench.some(8, 2), full_share=FULL_SHARE)
        bench.console.print(f"  {each:.1f} ms a run and a row: {found.rate:.1f} of {most:.1f}/s", highlight=False)
        if 0.0 < found.rate <= most and (found.rate >= _CLOSE * most or bench.quick):
            return slowed, found
        each *= min(2.0, max(0.7, found.rate / (0.8 * most)))
    raise RuntimeError(f"no slow-down leaves the model a capacity of up to {most:.1f} requests/s")


def overloaded(bench: Bench, slowed: dict[str, float], times: int, alone: float) -> dict[str, Any]:
    """Runs one overload of `times` × the capacity, after a quiet phase at half of it."""
    with _served(bench, **slowed) as (service, users):
        drive_now(service.url, users.arrivals(alone / 2, bench.some(10, 3), 1), warmup_s=0.0)
        found, watch, began = _driven(service, users, times * alone, bench.some(SECONDS, 6), seed=100 + times)
    found |= {"times": times, "changes": watch.changes(began), "guard": watch.since(began)}
    summary = [f"{times} ×", found["rungs"], found["reasons"], found["attempts"], found["changes"]]
    bench.console.print(f"  {', '.join(map(str, summary))}", highlight=False)
    return found


def judge(bench: Bench, runs: Sequence[dict[str, Any]]) -> None:
    """Records a row for each promise and each multiple of the capacity."""
    alone = runs[0]["model_rate"]
    for one in runs:
        name = f"1 overload {one['times']} ×"
        failed = one["requests"] - one["answered"]
        bench.row(f"{name} errors", failed, f"of {one['requests']:,} requests", at_most=0)
        bench.row(f"{name} within the budget", one["within_budget"], "% of requests", at_least=99.9)
        bench.row(f"{name} within the budget, at the service", one["own_within_budget"], "% of answers")
        share = 100.0 * one["model_rate"] / max(1e-9, alone)
        bench.row(f"{name} model lists", share, "% of those at 1 ×", at_least=80.0)
        bench.row(f"{name} breaker", len(one["changes"]), "changes of state", at_most=0)


def risen(bench: Bench, floor: float, share: float) -> dict[str, Any]:
    """Runs the unslowed service once, at a share of the floor."""
    with _served(bench) as (service, users):
        drive_now(service.url, users.arrivals(floor / 10, bench.some(5, 2), 1), warmup_s=0.0)
        found, watch, began = _driven(service, users, share * floor, bench.some(20, 3), seed=int(1000 * share))
    found |= {"share_of_floor": share, "changes": watch.changes(began), "holds": _holds(found)}
    cores = f"cores: service {found['service_cores']:.2f}, generator {found['generator']['cpu_share']:.2f}"
    summary = [f"unslowed, {share:.0%} of the floor", found["rungs"], found["reasons"], found["errors"],
            f"p99 {found['latency_ms']['p99']} ms", cores]  # fmt: skip
    bench.console.print(f"  {', '.join(map(str, summary))}", highlight=False)
    return found


def judge_rising(bench: Bench, rising: Sequence[dict[str, Any]]) -> None:
    """Records the highest rate that held, the server errors, and the first rate that failed."""
    held = [one for one in rising if one["holds"]]
    best = max((one["offered_rate"] for one in held), default=0.0)
    bench.row("1 unslowed highest rate", best, "requests/s with p99 within the budget and no errors")
    server_errors = sum(one["errors_5xx"] for one in rising)
    bench.row("1 unslowed 5xx", server_errors, f"of {sum(r['requests'] for r in rising):,} requests", at_most=0)
    burst = next((one for one in rising if not one["holds"]), None)
    if burst is not None:
        bench.row("1 unslowed gives out", burst["offered_rate"], "requests/s: p99 beyond the budget, or errors")


def _holds(found: dict[str, Any]) -> bool:
    p99 = found["latency_ms"]["p99"]
    return not found["errors"] and p99 is not None and p99 <= BUDGET_MS


def _driven(
    service: Served, users: Crowd, rate: float, seconds: float, seed: int
) -> tuple[dict[str, Any], stress.Watch, float]:
    """Drives one open-loop run; every request counts, there is no warm-up."""
    record = Record()
    arrivals = users.arrivals(rate, seconds, seed)
    before, cpu, clock = stress.attempts(service.url), service.cpu_s(), time.perf_counter()
    with stress.watched(service.url, every_s=1.0) as watch:
        report = drive_now(
            service.url, arrivals, warmup_s=0.0, connections=CONNECTIONS, stamped=True, record=record
        )  # fmt: skip
    cores = (service.cpu_s() - cpu) / (time.perf_counter() - clock)
    found = {
        "rate": rate,
        "offered_rate": report.offered_rate,
        **stress.tally(record.answers, seconds),
        "attempts": dict(stress.attempts(service.url) - before),
        "service_cores": cores,
        "generator": report.json()["generator"],
        "each_second": stress.seconds_of(record.answers, seconds),
    }
    return found, watch, record.began


def _capacity(
    bench: Bench, service: Served, users: Crowd, *, low: float, seconds: float, full_share: float | None = None
) -> Capacity:
    def make(rate: float, length: float, seed: int) -> Sequence[Arrival]:
        stress.close_breaker(service.url, users, max(10.0, low / 2))
        return users.arrivals(rate, length, seed)

    def show(step: Step) -> None:
        bench.console.print(f"  {step.rate:8.1f} requests/s: {step.fault or 'holds'}", highlight=False)

    return capacity(
        service.url, make, p99_ms=BUDGET_MS, full_share=full_share, low=low, seconds=seconds, confirm_s=2 * seconds,
        precision=0.3 if bench.quick else 0.05, on_step=show, connections=CONNECTIONS,
    )  # fmt: skip


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[
        bool, typer.Option(help="A few seconds for everything, to try the command; records no figures.")
    ] = False,
) -> None:
    """Measures how a service of its own answers more load than it can sustain."""
    run(stress.bench_of("overload", artifact, out, quick=quick))


if __name__ == "__main__":
    run_command(main)
