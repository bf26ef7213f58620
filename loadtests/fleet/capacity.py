"""What this machine can do, predicted from the costs of parts and then measured; what larger fleets need.

    python -m loadtests.fleet.capacity_costs --artifact DIR --data DATA     the costs, which everything follows from
    python -m loadtests.fleet.capacity predict                              writes the prediction down, with its time
    python -m loadtests.fleet.capacity check --artifact DIR --data DATA     measures, and records the difference
    python -m loadtests.fleet.capacity plan --users 1e6 --lists 1e4         what such a fleet needs

The prediction is a simulation of two worker processes, an embedded Valkey and the sender of the load on all cores of
the machine (`loadtests.fleet.queueing`). `check` refuses to run without a prediction that is newer than the costs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.engine.before_after import Asked, highest_rate_of
from loadtests.fleet import fleet_criteria
from loadtests.fleet.capacity_costs import LEAST, NAME, USERS
from loadtests.fleet.capacity_model import Assumptions, Costs, Demand, needs, usd_a_million
from loadtests.fleet.prices import COMPUTE, LEAST_USD_HOUR, MEMORY
from loadtests.fleet.queueing import Machine, highest_rate
from loadtests.harness.bench import PATIENT
from loadtests.harness.served_process import free_port, serve
from service.cli.outermost import run_command

PREDICTED, CHECKED = "capacity_predicted", "capacity_checked"
COMMAND = "python -m loadtests.fleet.capacity check --artifact ARTIFACT --data DATA"
WORKERS, P99_MS = 2, 50.0

app = typer.Typer(add_completion=False)
console = Console(stderr=True)
Folder = Annotated[Path, typer.Option("--out", help="Folder of the figures.")]


def costs_of(folder: Path) -> Costs:
    """Returns the measured costs.

    Raises:
        ResultsError: They were not measured.
    """
    payload = results.load(NAME, folder)
    if payload is None:
        raise results.ResultsError(
            f"{folder / NAME}.json is missing: run python -m loadtests.fleet.capacity_costs first"
        )
    return Costs(payload)


@app.command()
def predict(out: Folder = results.RESULTS) -> None:
    """Predicts the highest rate with p99 ≤ 50 ms of two workers on this machine, and writes it down."""
    of_list = costs_of(out).of_lists()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    rate, run = highest_rate(of_list, Machine(cores=cores, workers=WORKERS), p99_ms=P99_MS)
    found = {
        "rate": round(rate, 1), "p50_ms": round(run.at(50.0), 2), "p99_ms": round(run.at(99.0), 2),
        "batch": round(run.batch, 2), "busy_cores": round(run.busy, 3), "cores": cores, "workers": WORKERS,
        "parts": {name: round(value, 2) for name, value in asdict(of_list).items()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    results.save(PREDICTED, found, command="python -m loadtests.fleet.capacity predict", folder=out)
    console.print(f"  predicted: {rate:.0f} lists/s with p99 {run.at(99.0):.1f} ms, {run.batch:.1f} rows a run")


@app.command()
def check(
    artifact: Annotated[Path, typer.Option(help="Artefact folder of the costs.")],
    data: Annotated[Path, typer.Option(help="Data set of the artefact.")],
    rounds: Annotated[int, typer.Option(min=1, help="Searches; their median counts.")] = 5,
    out: Folder = results.RESULTS,
) -> None:
    """Searches the highest rate of two workers, and records how far the prediction is from it."""
    predicted = results.load(PREDICTED, out)
    costs = out / f"{NAME}.json"
    if predicted is None or (out / f"{PREDICTED}.json").stat().st_mtime < costs.stat().st_mtime:
        raise results.ResultsError(
            "there is no prediction from these costs: run python -m loadtests.fleet.capacity predict"
        )
    asked = Asked.of(data, USERS, LEAST)
    found: list[dict[str, Any]] = []
    place = ("--workers", str(WORKERS), "--port", str(free_port(WORKERS + 1)))
    with serve(artifact, *place, **PATIENT) as served:
        asked.warm(served)
        for number in range(rounds):
            found.append(highest_rate_of(served.url, asked.bodies, seed=number))
            console.print(f"  round {number + 1} of {rounds}: {found[-1]['rate']:.0f} lists/s")
    measured = median(one["rate"] for one in found)
    _record(out, predicted, measured, found)


def _record(out: Path, predicted: Mapping[str, Any], measured: float, found: list[dict[str, Any]]) -> None:
    rows = out / results.FLEET.name
    off = 100.0 * abs(predicted["rate"] - measured) / measured
    results.record(rows, fleet_criteria.row(fleet_criteria.CAPACITY, off, COMMAND))
    for name, value in (("predicted", predicted["rate"]), ("measured", measured)):
        results.record(rows, results.row(f"capacity: lists with p99 ≤ 50 ms, {name}", value, "a second", COMMAND))
    results.save(CHECKED, {"measured": measured, "predicted": predicted, "rounds": found}, command=COMMAND, folder=out)
    console.print(f"  measured {measured:.0f}, predicted {predicted['rate']:.0f}: {off:.1f} % off")


@app.command()
def plan(
    users: Annotated[float, typer.Option(help="Users whose history is stored.")],
    lists: Annotated[float, typer.Option(help="Lists a second at the busiest.")],
    events: Annotated[float | None, typer.Option(help="Events a second; as many as lists if left out.")] = None,
    history: Annotated[float, typer.Option(help="Mean events of a stored history.")] = 50.0,
    sampled: Annotated[float, typer.Option(help="Share of the lists that are drawn.")] = 0.2,
    utilisation: Annotated[float, typer.Option(help="Share of a core to plan for at the peak.")] = 0.6,
    out: Folder = results.RESULTS,
) -> None:
    """Prints what a fleet needs, from the recorded costs."""
    demand = Demand(
        users=users, lists=lists, events=lists if events is None else events, history=history, sampled=sampled
    )
    assumed = Assumptions(utilisation=utilisation)
    fleet = needs(costs_of(out), demand, assumed)
    for name, value in asdict(fleet).items():
        console.print(
            f"  {name.replace('_', ' ')}: {value:,.2f}" if isinstance(value, float) else f"  {name}: {value:,}"
        )
    usd = usd_a_million(fleet, demand, assumed, COMPUTE, MEMORY, LEAST_USD_HOUR)
    console.print(f"  US$ for a million lists, at this rate all the time: {usd:.3f}")


if __name__ == "__main__":
    run_command(app)
