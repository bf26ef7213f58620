"""What the item table adds to a process, whole and in parts: `python -m loadtests.fleet.torch_memory`.

A network of size `small` with many items makes a few steps with AdamW and the moving average of its weights, in one
process with the whole table, and in two and four that have a part of it. What the table adds is the peak resident
memory less that of the same processes with few items; of several processes the largest counts.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.fleet.torch_launch import LaunchError, torchrun
from model.network.config import SIZES
from service.cli.outermost import run_command

NAME, COMMAND = "fleet_torch_memory", "python -m loadtests.fleet.torch_memory"
ITEMS, FEW, STEPS = 1_000_000, 2_000, 3
# Processes, and whether each has the whole table. One process with the table in one part is measured as well: its step
# makes one gradient of the table where that of the whole table makes two for a moment.
SCENES = ((1, True), (1, False), (2, False), (4, False))
MIB = 1 << 20


def peak(processes: int, items: int, work: Path, *, whole: bool, steps: int = STEPS) -> int:
    """Returns the largest peak memory of some processes, in bytes.

    Raises:
        LaunchError: They failed.
    """
    work.mkdir(parents=True)
    arguments = ["-m", "loadtests.fleet.torch_table", "--out", str(work), "--items", str(items), "--steps", str(steps)]
    with torchrun(processes, [*arguments, *(["--whole"] if whole else [])], work / "log") as launched:
        if launched.wait():
            raise LaunchError(f"{processes} processes with {items:,} items failed:\n{launched.tail()}")
    return max(int(json.loads((work / f"{rank}.json").read_text("utf-8"))["peak_bytes"]) for rank in range(processes))


def main(
    items: Annotated[int, typer.Option(help="Rows of the table.")] = ITEMS,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
) -> None:
    """Measures, and records what the table adds to a process of two over what it adds to one."""
    console = Console()
    table_bytes = items * int(SIZES["small"]["d_model"]) * 4
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for processes, whole in SCENES:
            few, many = (
                peak(processes, n, Path(folder) / f"{processes}-{whole}-{n}", whole=whole) for n in (FEW, items)
            )
            added = many - few
            rows.append({"processes": processes, "whole": whole, "few": few, "many": many, "added": added})
            kind = "whole" if whole else "in parts"
            console.print(f"{processes}, {kind}: {added / MIB:,.0f} MiB, {added / table_bytes:.2f} × the table")
    by_scene = {(row["processes"], row["whole"]): int(row["added"]) for row in rows}
    one = min(by_scene[1, True], by_scene[1, False])  # the reading that says less for the parts
    share = {processes: by_scene[processes, False] / one for processes in (2, 4)}
    console.print(f"a process of two / one: {share[2]:.3f}, of four / one: {share[4]:.3f}")
    results.save(NAME, {"items": items, "table_bytes": table_bytes, "rows": rows}, command=COMMAND, folder=out)
    if items >= ITEMS:
        results.record(out / results.FLEET.name, fleet_criteria.row(fleet_criteria.TORCH_MEMORY, share[2], COMMAND))


if __name__ == "__main__":
    run_command(main)
