"""Fail-overs under load, into results/fleet_failover.json: `python -m loadtests.fleet.failover --artifact DIR`.

Rows that are recorded already are left out, unless `--again` is given: a run that was interrupted goes on. A row in
which the network is cut runs in a network and a process namespace of its own, which need no privileges where the
kernel lets users make them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.fleet.failover_rows import NAMES, ROWS
from loadtests.fleet.failover_scene import Row, RowError, tried
from loadtests.harness import redis_programs
from loadtests.harness.places import PRIVATE_NETWORK
from loadtests.harness.served_process import NotReadyError
from loadtests.load.open_loop_driver import LoadError
from service.cli.outermost import run_command

NAME = "fleet_failover"
COMMAND = "python -m loadtests.fleet.failover --artifact ARTIFACT"
_ROW_S = 300.0


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    only: Annotated[str, typer.Option(help="Rows whose name begins with this.")] = "",
    again: Annotated[bool, typer.Option(help="Repeat rows that are recorded.")] = False,
    program: Annotated[
        str, typer.Option(help="Server program, such as valkey-9 or redis-7.0.")
    ] = redis_programs.DEFAULT,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[bool, typer.Option(help="Shorter, to try the command; records no figures.")] = False,
    inside: Annotated[Path | None, typer.Option(hidden=True, help="Write the entry of one row here.")] = None,
) -> None:
    """Tries each fail-over on servers of its own, and records what was lost, refused and late."""
    if inside is not None:
        inside.write_bytes(orjson.dumps(_tried_here(NAMES[only], artifact, program, quick=quick)))
        return
    if quick and out == results.RESULTS:
        raise typer.BadParameter(
            "a quick run needs a folder of its own, so that it overwrites no figures", param_hint="--out"
        )
    if program != redis_programs.DEFAULT and out == results.RESULTS:
        raise typer.BadParameter("figures of another server need a folder of their own", param_hint="--out")
    chosen = [row for row in ROWS if row.name.startswith(only)]
    if not chosen:
        raise typer.BadParameter(f"no row begins with this; there are {'; '.join(NAMES)}", param_hint="--only")
    console, failed = Console(), []
    for number, row in enumerate(chosen, 1):
        if not again and row.name in (results.load(NAME, out) or {}).get("rows", {}):
            continue
        began = time.perf_counter()
        console.print(f"[bold]{number} of {len(chosen)}: {row.name}[/bold]")
        try:
            entry = tried_alone(row, artifact, program, quick=quick)
        except (RowError, NotReadyError, LoadError, OSError) as error:
            failed.append(row.name)
            console.print(f"  failed: {type(error).__name__}: {error}", style="red", highlight=False, markup=False)
            continue
        keep(row, entry, out)
        _show(console, entry, time.perf_counter() - began)
    if failed:
        typer.echo(f"failover: could not try: {'; '.join(failed)}", err=True)
        raise typer.Exit(1)


def tried_alone(row: Row, artifact: Path, program: str, *, quick: bool = False) -> dict[str, Any]:
    """Tries a row, in namespaces of its own if the network is cut; returns its entry.

    Raises:
        RowError: It could not be tried. So may OSError and NotReadyError.
    """
    if not row.cut:
        return _tried_here(row, artifact, program, quick=quick)
    with tempfile.TemporaryDirectory(prefix="gpt4rec-failover-") as folder:
        file = Path(folder) / "entry.json"
        command = [
            *PRIVATE_NETWORK, sys.executable, "-m", "loadtests.fleet.failover", "--artifact", str(artifact.resolve()),
            "--only", row.name, "--program", program, "--inside", str(file), *(("--quick",) if quick else ()),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ROW_S)  # noqa: S603 - our own
        except subprocess.TimeoutExpired:
            raise RowError(f"not done within {_ROW_S:.0f} s") from None
        if done.returncode != 0:
            raise RowError(done.stderr.strip()[-600:] or f"it ended with {done.returncode}")
        entry: dict[str, Any] = orjson.loads(file.read_bytes())
        return entry


def _tried_here(row: Row, artifact: Path, program: str, *, quick: bool) -> dict[str, Any]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="gpt4rec-failover-") as folder:
        return tried(row, artifact, Path(folder), program=redis_programs.program(program), quick=quick)


def keep(row: Row, entry: dict[str, Any], out: Path) -> None:
    """Writes the entry in place of a former one, and the criteria over all rows that are recorded."""
    rows = {**(results.load(NAME, out) or {}).get("rows", {}), row.name: entry}
    rows = {one.name: rows[one.name] for one in ROWS if one.name in rows}
    results.save(NAME, {"rows": rows}, command=COMMAND, folder=out)
    figures = {
        fleet_criteria.FAILOVER_LOST: sum(one["beyond"] for one in rows.values()),
        fleet_criteria.FAILOVER_5XX: sum(one["5xx"] for one in rows.values()),
        fleet_criteria.FAILOVER_ROWS: len(rows),
    }
    late = [one["late_percent"] for one in rows.values()]
    if None not in late:  # rows of a machine that was not idle have no figure
        figures[fleet_criteria.FAILOVER_LATE] = max(late)
    for name, value in figures.items():
        results.record(out / results.FLEET.name, fleet_criteria.row(name, value, COMMAND))


def _show(console: Console, entry: dict[str, Any], took_s: float) -> None:
    lines = [
        f"{entry['events']} events acknowledged, {entry['refused']} refused over {entry['refused_s']} s; lost "
        f"{entry['lost']} ({entry['lost_from_s']} to {entry['lost_to_s']} s), beyond the promise {entry['beyond']}, "
        f"twice {entry['twice']}",
        f"{entry['lists']} lists, {entry['without_history']} without history; 5xx {entry['5xx']}, unanswered "
        f"{entry['unanswered']}, wrong {entry['wrong']}, late {entry['late_percent']} %; {took_s:.0f} s",
        *entry["notes"],
    ]
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
