"""The same fail-overs on every server that is installed: `python -m loadtests.fleet.versions --artifact DIR`.

It writes results/fleet_versions.json. Which servers there are, and which package each comes from, says
`loadtests.harness.redis_programs`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.fleet.failover import tried_alone
from loadtests.fleet.failover_rows import NAMES
from loadtests.fleet.failover_scene import RowError
from loadtests.harness import redis_programs
from loadtests.harness.served_process import NotReadyError
from service.cli.outermost import run_command

NAME = "fleet_versions"
COMMAND = "python -m loadtests.fleet.versions --artifact ARTIFACT"
# A cluster's own fail-over and its moves of slots, and Sentinel's.
ROWS = (
    "cluster, primary killed, replica",
    "cluster, slots moved key by key, memory",
    "sentinel, master killed, replica",
)


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    again: Annotated[bool, typer.Option(help="Repeat rows that are recorded.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
) -> None:
    """Tries three fail-overs on each server, and records what was lost."""
    console = Console()
    for program in redis_programs.found().values():
        version = version_of(program)
        for name in ROWS:
            recorded = (results.load(NAME, out) or {}).get("rows", {})
            key = f"{program.name}: {name}"
            if not again and key in recorded:
                continue
            try:
                entry: dict[str, Any] = tried_alone(NAMES[name], artifact, program.name)
            except (RowError, NotReadyError, OSError) as error:
                console.print(f"{key}: failed: {error}", style="red", highlight=False, markup=False)
                continue
            found = {key: {**entry, "server": version, "row": name}}
            results.save(NAME, {"rows": {**recorded, **found}}, command=COMMAND, folder=out)
            console.print(
                f"{key} ({version}): lost {entry['lost']}, beyond the promise {entry['beyond']}, 5xx {entry['5xx']}",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip


def version_of(program: redis_programs.Program) -> str:
    """Returns what the server says of itself: `Redis 8.2.3`."""
    said = subprocess.run(  # noqa: S603 - a server of a package
        [str(program.path), "--version"], capture_output=True, text=True, check=True, env={**program.environment}
    ).stdout
    name, _, rest = said.partition(" server v=")
    return f"{name} {rest.split(' ')[0]}"


if __name__ == "__main__":
    run_command(main)
