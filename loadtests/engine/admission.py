"""The guard and the batcher in front of a model that sleeps: admission under overload, without HTTP.

    python -m loadtests.engine.admission [--run-ms 10] [--row-ms 12] [--rates 40,80,160,400] [--seconds 6]

A run of n rows takes run_ms + n · row_ms. Prints, for each rate (requests a second, Poisson, 80 ms each), the model
answers a second and the outcomes of the attempts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from loadtests.load.open_loop_driver import poisson
from service.batching.batcher import Batcher, BatchLimits
from service.cli.outermost import run_command
from service.common.deadline import Deadline
from service.common.errors import DeadlineExceeded, Overloaded
from service.guard.guard import Guard, GuardSettings, Outcome
from service.metrics.service_metrics import Metrics

BUDGET_S, RESERVE_S = 0.080, 0.008


async def attempt(guard: Guard, batcher: Batcher[int, int]) -> str:
    """Makes one request; returns the outcome of the attempt, or the reason why there was none."""
    deadline = Deadline.after(BUDGET_S)
    decision = guard.decide(deadline, lambda _: batcher.forecast(None))
    if not decision.asks_the_model:
        return str(decision.reason)
    began, outcome = time.monotonic(), Outcome.OK
    try:
        await batcher.submit(0, deadline.keeping(RESERVE_S))
    except DeadlineExceeded:
        outcome = Outcome.LATE
    except Overloaded:
        outcome = Outcome.WAITED
    guard.observe(outcome, time.monotonic() - began, decision)
    return outcome


async def load(guard: Guard, batcher: Batcher[int, int], rate: float, seconds: float) -> Counter[str]:
    """Counts the outcomes of the requests of a Poisson process."""
    began, tasks = time.monotonic(), []
    for due in poisson(np.random.default_rng(0), rate, seconds):
        if (wait := began + due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(attempt(guard, batcher)))
    return Counter(await asyncio.gather(*tasks))


async def measure(
    run_ms: float, row_ms: float, rates: Sequence[float], seconds: float
) -> list[tuple[float, Counter[str]]]:
    """Returns each rate with the outcomes of its requests."""

    def sleep(jobs: Sequence[int]) -> Sequence[int]:
        time.sleep((run_ms + row_ms * len(jobs)) / 1000.0)
        return jobs

    batcher: Batcher[int, int] = Batcher(sleep, Metrics(), BatchLimits(), name="sleep")
    guard = Guard(GuardSettings(reserve_ms=RESERVE_S * 1000.0), time.monotonic)
    batcher.start()
    try:
        return [(rate, await load(guard, batcher, rate, seconds)) for rate in rates]
    finally:
        await batcher.close(5.0)


def main(
    run_ms: Annotated[float, typer.Option(help="Fixed cost of a run.")] = 10.0,
    row_ms: Annotated[float, typer.Option(help="Cost of each row.")] = 12.0,
    rates: Annotated[str, typer.Option(help="Requests a second, comma separated.")] = "40,80,160,400",
    seconds: Annotated[float, typer.Option(help="Length of each.")] = 6.0,
) -> None:
    """Prints a table."""
    wanted = [float(rate) for rate in rates.split(",")]
    console = Console()
    with console.status(f"{len(wanted)} × {seconds:g} s"):
        found = uvloop.run(measure(run_ms, row_ms, wanted, seconds))
    table = Table("requests/s", "model answers/s", "late %", "waited %", "refused by forecast %", "by the breaker %")
    for rate, seen in found:
        attempts = max(1, seen["ok"] + seen["late"] + seen["waited"])
        refused, spared = (seen["overload"] + seen["deadline"]), seen["latency_budget"] + seen["breaker_open"]
        shares = (seen["late"] / attempts, seen["waited"] / attempts, refused / seen.total(), spared / seen.total())
        table.add_row(f"{rate:g}", f"{seen['ok'] / seconds:.1f}", *(f"{share * 100:.1f}" for share in shares))
    console.print(table)


if __name__ == "__main__":
    run_command(main)
