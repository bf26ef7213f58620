"""Compares this service with what people would use instead, on the same artefact.

    python -m loadtests.peers install
    python -m loadtests.compare --artifact DIR --run RUN --data DATA --tune      the settings of every peer, first
    python -m loadtests.compare --artifact DIR --run RUN --data DATA

Every system has the machine to itself, in rounds (A B C … A B C …), so that a slow minute of the machine affects all of
them; ratios are taken within a round. What it writes: `loadtests/results/peers.json` (and `peers_tuning.json`), and the
rows of criterion 2 in `loadtests/results/engine.json`. `loadtests.peers` describes how each peer is built.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtests.common import limit_criteria, results
from loadtests.compare.measure import QUICK, Effort, measure, try_settings
from loadtests.compare.rows import LIMIT_MS, Measured, criteria, round_json, system_row
from loadtests.compare.users import Users, users_of
from loadtests.peers import environments
from loadtests.peers.environments import PeerError
from loadtests.peers.sizes import sizes_of
from loadtests.peers.systems import K, Place, Settings, System, systems
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command
from service.common.errors import ServiceError

TUNING = "peers_tuning"
NAME = "peers"

console = Console()
app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one call compares and with what effort; `tried` are the settings measured before, by system."""

    chosen: Sequence[System]
    users: Users
    place: Place
    effort: Effort
    tried: Mapping[str, list[dict[str, Any]]]

    def settings(self, system: System) -> Settings:
        """Returns the fastest measured settings of a system, or its first ones."""
        return fastest(self.tried.get(system.key, [])) or system.tried[0]


def fastest(tried: Sequence[Mapping[str, Any]]) -> Settings | None:
    """Returns the settings with the highest rate among those whose p99 is within the limit (among all if none is).

    None if nothing was tried.
    """
    in_time = [one for one in tried if one["p99_ms"] <= LIMIT_MS] or tried
    return max(in_time, key=lambda one: one["rps"])["settings"] if tried else None


def tune(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Tries every setting of every system in a short closed loop; a setting that fails is kept with its error."""
    found: dict[str, list[dict[str, Any]]] = {}
    runs = [(system, settings) for system in comparison.chosen for settings in system.tried]
    with _progress() as bar:
        task = bar.add_task("", total=len(runs))
        for system, settings in runs:
            bar.update(task, description=f"{system.key} {dict(settings)}")
            try:
                one = try_settings(system, settings, comparison.users, comparison.place, comparison.effort)
            except PeerError as error:
                one = {"settings": dict(settings), "rps": 0.0, "p50_ms": 0.0, "p99_ms": 1e9, "error": str(error)[:300]}
            found.setdefault(system.key, []).append(one)
            bar.console.print(f"{system.key}: {one}", markup=False, highlight=False)
            bar.advance(task)
    return found


def compare(comparison: Comparison, rounds: int) -> list[dict[str, Measured]]:
    """Measures all systems in rounds; a peer that fails is reported and left out of its round, ours must not fail."""
    done: list[dict[str, Measured]] = []
    with _progress() as bar:
        task = bar.add_task("", total=rounds * len(comparison.chosen))
        for number in range(rounds):
            done.append({})
            for system in comparison.chosen:
                bar.update(task, description=f"round {number + 1}: {system.key}")
                try:
                    one = measure(
                        system, comparison.settings(system), comparison.users, comparison.place, comparison.effort
                    )
                except PeerError as error:
                    if system.is_ours:
                        raise
                    bar.console.print(f"{system.key}: {error}", style="red", markup=False)
                else:
                    done[-1][system.key] = one
                    bar.console.print(
                        f"{system.key}: {one.rps:.1f} requests/s, p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms, "
                        f"{one.server_cpu:.2f} cores, generator {one.generator_cpu:.2f}"
                        + (f"; wrk {one.wrk.rps:.1f}/s" if one.wrk else ""),
                        markup=False,
                        highlight=False,
                    )
                bar.advance(task)
    return done


def payload(comparison: Comparison, rounds: Sequence[Mapping[str, Measured]]) -> dict[str, Any]:
    """What `peers.json` holds."""
    rows = []
    for system in comparison.chosen:
        row = system_row(system, comparison.settings(system), comparison.tried.get(system.key, []), rounds)
        if row is not None:
            rows.append(row)
    used = {system.environment for system in comparison.chosen if system.environment is not None}
    return {
        "systems": rows,
        "rounds": [round_json(one) for one in rounds],
        "peer_versions": {name: environments.installed_versions(name) for name in sorted(used)},
        "users": len(comparison.users.subjects),
    }


def run_width(artifact: Path) -> int:
    """Returns how many nodes a level the runs of the compared lists keep."""
    return sizes_of(Artifact.open(artifact), K).width


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="requests a second at p99 ≤ 50 ms")
    for column in ("system", "requests/s", "p50 ms", "p99 ms", "server cores", "generator", "by round", "settings"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            f"{row['name']}, {row['variant']}" + ("" if row["method"].startswith("highest") else " (sequential)"),
            *(f"{row[name]:.2f}" for name in ("rps", "p50_ms", "p99_ms", "server_cpu", "generator_cpu")),
            str(row["rps_by_round"]),
            str(row["settings"]["chosen"]),
        )
    console.print(table)


def _chosen(only: Sequence[str], run: Path | None) -> list[System]:
    """Systems whose key begins with one of `only` (all where there is none). Raises PeerError where one cannot run."""
    chosen = [one for one in systems() if not only or any(one.key.startswith(name) for name in only)]
    if not chosen:
        raise PeerError("no such system; the systems are: " + "; ".join(one.key for one in systems()))
    for system in chosen:
        if system.environment is not None:
            environments.python(system.environment)
        if system.needs_run and run is None:
            raise PeerError(f"{system.key} needs --run, the training run of the artefact")
    return chosen


@app.command()
def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder that every system serves.")],
    data: Annotated[Path, typer.Option(help="Data set folder with the users.")],
    run: Annotated[Path | None, typer.Option(help="Run folder of the artefact; needed by torch eager.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=10, help="Rounds over all systems.")] = 2,
    users: Annotated[int, typer.Option(min=20, help="Number of users.")] = 200,
    only: Annotated[
        list[str] | None, typer.Option(help="Only systems whose name begins with this; repeatable.")
    ] = None,
    tune_: Annotated[bool, typer.Option("--tune", help="Only try every setting and record the figures.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Short runs to try the command; records no figures.")] = False,
) -> None:
    """Compare; exits 1 where a system could not be compared."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every server is ended
    command = "python -m loadtests.compare " + " ".join(
        f"--{name} {value.name}" for name, value in (("artifact", artifact), ("run", run), ("data", data)) if value
    )
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
            place = Place(Artifact.open(artifact).folder.absolute(), run.absolute() if run else None, Path(scratch))
            chosen = _chosen(only or (), run)
            asked = users_of(data, place.artifact, users)
            earlier = {} if tune_ else (results.load(TUNING) or {}).get("tried", {})
            comparison = Comparison(chosen, asked, place, QUICK if quick else Effort(), earlier)
            _work(comparison, rounds=1 if quick else rounds, tuning=tune_, write=not quick, command=command)
    except (PeerError, ServiceError, ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    console.print(f"{time.perf_counter() - began:.0f} s")


def _work(comparison: Comparison, *, rounds: int, tuning: bool, write: bool, command: str) -> None:
    if tuning:
        tried = tune(comparison)
        if write:
            kept = (results.load(TUNING) or {}).get("tried", {})
            results.save(TUNING, {"tried": {**kept, **tried}}, command=f"{command} --tune")
        return
    found, width = compare(comparison, rounds), run_width(comparison.place.artifact)
    content = payload(comparison, found)
    _show(content["systems"])
    for row in criteria(found, command, width):
        console.print(f"{row.criterion}: {row.value:.2f} {row.limit or ''} {row.holds if row.limit else ''}")
        if write:
            results.record(results.ENGINE, row)
    if write:
        name = f"{NAME}_wide" if width == limit_criteria.WIDE else NAME
        results.save(name, {**content, "width": width}, command=command)


if __name__ == "__main__":
    run_command(app)
