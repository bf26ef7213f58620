"""Whether one process and several train alike: `python -m loadtests.fleet.torch_equal --data DIR`.

Each runs under torchrun, over gloo, with the same global batch; the losses of the first steps are compared one by one.
Dropout, context dropout and the other draws are those of the default configuration. The loss has sums whose order
depends on who adds what, so it is not the same to the last bit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.fleet.torch_launch import LaunchError, torchrun
from service.cli.outermost import run_command

NAME, COMMAND, STEPS = "fleet_torch_equal", "python -m loadtests.fleet.torch_equal --data DIR", 100

# What is compared: the default configuration, the sampled softmax, every kind of draw that follows rows, and another
# encoder, whose attention weights are dropped as well.
KINDS: dict[str, Sequence[str]] = {
    "default": (),
    "sampled softmax": ("negatives=256",),
    "item table in parts": ("negatives=256", "shard_items=true"),
    "augmentation and masked events": (
        "methods.augment=0.5", "encoder=bert4rec", "network.dropout=0.2", "size=tiny",
    ),
    "sasrec": ("encoder=sasrec", "size=tiny", "network.dropout=0.2"),
}  # fmt: skip


def losses(processes: int, data: Path, settings: Sequence[str], steps: int, work: Path) -> list[float]:
    """Returns the losses of the first steps of a training by some processes.

    Raises:
        LaunchError: They did not make the steps.
    """
    work.mkdir(parents=True)
    file, log = work / "losses.json", work / "log"
    given = [word for one in settings for word in ("--set", one)]
    arguments = [
        "-m", "loadtests.fleet.torch_losses", "--data", str(data), "--out", str(work / "run"), "--losses", str(file),
        "--steps", str(steps), *given,
    ]  # fmt: skip
    with torchrun(processes, arguments, log) as launched:
        if launched.wait() or not file.exists():
            raise LaunchError(f"{processes} processes did not make {steps} steps:\n{launched.tail()}")
    found: list[float] = json.loads(file.read_text("utf-8"))
    return found


def main(
    data: Annotated[Path, typer.Option(help="Data set folder, written by `gpt4rec data`.")],
    steps: Annotated[int, typer.Option(help="Steps to compare.")] = STEPS,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
) -> None:
    """Compares one process with two and four, and records the largest difference of two from one."""
    console = Console()
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in KINDS.items():
            by_count = {
                n: losses(n, data, settings, steps, Path(folder) / f"{len(table)}-{n}") for n in (1, 2, 4)
            }  # fmt: skip
            one = by_count[1]
            differences = {
                n: max(abs(a - b) for a, b in zip(one, found, strict=True)) for n, found in by_count.items() if n > 1
            }
            table[name] = {
                "settings": list(settings), "steps": len(one), "first": one[0], "last": one[-1],
                "two": differences[2], "four": differences[4],
            }  # fmt: skip
            console.print(name, table[name])
    worst = max(one["two"] for one in table.values())
    results.save(NAME, {"kinds": table}, command=COMMAND, folder=out)
    if steps >= STEPS:
        results.record(out / results.FLEET.name, fleet_criteria.row(fleet_criteria.TORCH_EQUAL, worst, COMMAND))
        # A row has four digits after the point, and this is smaller.
        exact = results.row("torchrun: the same difference, in millionths", worst * 1e6, "10⁻⁶ nats", COMMAND)
        results.record(out / results.FLEET.name, exact)


if __name__ == "__main__":
    run_command(main)
