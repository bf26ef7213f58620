"""Whether methods that are off by default left the defaults alone: what they learn, their lists, and what both cost.

    python -m loadtests.quality.unchanged --before TREE --data DIR --work DIR [--size small] [--epochs 2] [--rounds 15]

TREE is a checkout of the commit before the methods. A process of either tree trains the defaults of its own code from
one seed over the same epochs, and asks the test questions of the network alone. Then a process of each decodes lists of
a synthetic artefact of its own format, all signals with a weight, in turns. Where the graphs of the encoder are equal
byte for byte, so is the time of an event. Limits are in `method_criteria.UNCHANGED`, rows in `results/memory.json`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.quality import default_worker
from loadtests.quality.cost import HERE, worker
from loadtests.quality.method_criteria import UNCHANGED
from model.evaluation.bootstrap import paired_bootstrap
from service.cli.outermost import run_command

UNITS = {
    "weights that differ": "tensors",
    "share of places of the lists that are equal": "of places",
    "share of NDCG@10 lost, upper end": "of NDCG@10",
    "time of a list": "×",
    "graphs of the encoder that differ": "graphs",
}

console = Console(stderr=True)


def main(
    before: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Checkout of the older commit.")],
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of runs and synthetic artefacts.")],
    size: Annotated[str, typer.Option(help="Size of the networks.")] = "small",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of both trainings.")] = 2,
    items: Annotated[int, typer.Option(min=2, help="Size of the catalogue whose lists are timed.")] = 1700,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which both trees decode.")] = 15,
    runs: Annotated[int, typer.Option(min=1, help="Decoder runs of a round.")] = 40,
) -> None:
    """Trains, asks and times both trees, and records the rows."""
    command = (
        f"python -m loadtests.quality.unchanged --before TREE --data {data.name} --work DIR --size {size} "
        f"--epochs {epochs} --items {items} --rounds {rounds}"
    )
    trees = {"before": before.resolve(), "now": HERE}
    folders = {name: work.resolve() / f"defaults-{data.name}-{size}-{epochs}-{name}" for name in trees}
    for name, tree in trees.items():
        if not (folders[name] / "ndcg.npy").exists():
            trained(tree, data.resolve(), folders[name], size, epochs)
    found = compared(folders["before"], folders["now"])
    found["time of a list"] = in_turns(trees, work.resolve(), items, rounds, runs)
    graphs = [next(cost_folder(work, name).glob(f"fused-{items}-*/encoder.onnx")).read_bytes() for name in trees]
    found["graphs of the encoder that differ"] = int(graphs[0] != graphs[1])
    for name, value in found.items():
        criterion = f"defaults, {data.name}-{size}-{epochs}: {name}, against the commit before the methods"
        row = results.row(criterion, value, UNITS[name], command, **UNCHANGED[name])
        results.record(results.MEMORY, row)
        console.print(f"{criterion}: {row.value} ({row.limit}) {row.holds}", highlight=False)


def trained(tree: Path, data: Path, folder: Path, size: str, epochs: int) -> float:
    """Trains the defaults with the code of a tree; returns the processor seconds.

    Raises:
        subprocess.CalledProcessError: The training failed; its own words are on the standard error.
    """
    # The worker is always this tree's file: -P keeps its folder, and with it this tree, off the path of imports.
    command = [sys.executable, "-P", default_worker.__file__, str(data), str(folder)]
    command += ["--size", size, "--epochs", str(epochs)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return float(done.stdout.split()[-1])


def compared(before: Path, now: Path) -> dict[str, float]:
    """Returns what differs between two folders of `default_worker`, by the names of `UNCHANGED`."""
    weights = [np.load(folder / "weights.npz", allow_pickle=False) for folder in (before, now)]
    lists, ndcg = (
        [np.load(folder / file, allow_pickle=False) for folder in (before, now)] for file in ("lists.npy", "ndcg.npy")
    )
    names = set(weights[0].files) | set(weights[1].files)
    same = [
        name
        for name in set(weights[0].files) & set(weights[1].files)
        if np.array_equal(weights[0][name], weights[1][name])
    ]
    return {
        "weights that differ": len(names) - len(same),
        "share of places of the lists that are equal": float((lists[0] == lists[1]).mean()),
        "share of NDCG@10 lost, upper end": -paired_bootstrap(ndcg[1], ndcg[0]).low / max(float(ndcg[0].mean()), 1e-9),
    }


def cost_folder(work: Path, name: str) -> Path:
    """Returns the folder of the synthetic artefact of a tree."""
    return work.resolve() / f"defaults-cost-{name}"


def in_turns(trees: dict[str, Path], work: Path, items: int, rounds: int, runs: int) -> float:
    """Returns the processor time of a list now over that before, the ratio of the medians over the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in trees}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(worker(tree, cost_folder(work, name), items, 1, fused=True))
            for name, tree in trees.items()
        }
        for number in range(rounds + 1):
            for name in list(workers)[:: 1 if number % 2 else -1]:
                taken[name].append(workers[name].decode(runs))
    # The first round warms up.
    return median(taken["now"][1:]) / median(taken["before"][1:])


if __name__ == "__main__":
    run_command(main)
