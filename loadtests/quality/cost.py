"""What a list costs, as a multiple of what it cost at an older commit, at equal W.

    python -m loadtests.quality.cost --before TREE --work DIR [--sizes 1700,12000,1000000] [--rounds 15]

TREE is a checkout of the older commit. For each size of catalogue and of batch a process of either tree opens a
synthetic artefact of its own format (random weights, realistic codes) and decodes lists of ten with a beam of 5 on one
thread. The two take turns, so that other work of the machine affects both alike. The figure is the ratio of the medians
of processor time. The stored state of a user with more events than the window holds, and the graph runs of a list, are
taken from the smallest artefact.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.engine import decode_worker
from loadtests.engine.decoder_cases import count_runs, jobs
from loadtests.quality import criteria
from loadtests.quality.variants import cost as cost_of_an_event
from service.cli.outermost import run_command
from service.engine.engine import Engine

NAME = "quality_cost"
COMMAND = "python -m loadtests.quality.cost --before TREE --work DIR"
HERE = Path(__file__).resolve().parents[2]
SIZES, ROUNDS, RUNS = "1700,12000,1000000", 15, 40
# Up to this many items, batches of 32 are timed as well.
BATCHES_UP_TO = 100_000

console = Console(stderr=True)


class Worker:
    """A process of one working tree that decodes on request."""

    def __init__(self, process: subprocess.Popen[str], tree: Path) -> None:
        self._process, self._tree = process, tree
        self._line()

    def decode(self, runs: int) -> float:
        """Returns the median processor milliseconds of so many decoder runs."""
        assert self._process.stdin is not None  # noqa: S101 - asked for below
        self._process.stdin.write(f"{runs}\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - asked for below
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the decoder of {self._tree} ended with exit code {self._process.wait()}")
        return line


@contextmanager
def worker(tree: Path, folder: Path, items: int, batch: int) -> Iterator[Worker]:
    """Starts a worker with the code of `tree`, and ends it.

    Raises:
        RuntimeError: It cannot be started; its own words are on the standard error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The worker is always this tree's file: -P keeps its folder, and with it this tree, off the path of imports.
    command = [sys.executable, "-P", decode_worker.__file__, str(folder), "--items", str(items), "--batch", str(batch)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(  # noqa: S603 - our own program
        command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Worker(process, tree)
        finally:
            process.terminate()


def compare(before: Path, work: Path, items: int, batch: int, rounds: int, runs: int) -> dict[str, Any]:
    """Times both trees in turns; returns the milliseconds of each round, and the ratio of the medians."""
    with ExitStack() as stack:
        trees = {"now": HERE, "before": before.resolve()}
        workers = {
            name: stack.enter_context(worker(tree, work.resolve() / f"cost-{name}", items, batch))
            for name, tree in trees.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(rounds + 1):
            for name in list(workers)[:: 1 if number % 2 else -1]:
                taken[name].append(workers[name].decode(runs))
    # The first round warms up.
    ms = {name: values[1:] for name, values in taken.items()}
    return {"items": items, "batch": batch, **ms, "ratio": median(ms["now"]) / median(ms["before"])}


def main(
    before: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Checkout of the older commit.")],
    work: Annotated[Path, typer.Option(help="Folder of the synthetic artefacts.")],
    sizes: Annotated[str, typer.Option(help="Sizes of the catalogue, separated by commas.")] = SIZES,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each tree.")] = ROUNDS,
    runs: Annotated[int, typer.Option(min=1, help="Decoder runs of a round.")] = RUNS,
) -> None:
    """Times lists of both trees, and records the ratios."""
    cases = [
        (int(size), batch) for size in sizes.split(",") for batch in ((1, 32) if int(size) <= BATCHES_UP_TO else (1,))
    ]
    rows = []
    for items, batch in cases:
        found = compare(before, work, items, batch, rounds, runs)
        rows.append(found)
        name = f"{criteria.COST}: {items:,} items, batch {batch}"
        results.record(results.QUALITY, results.row(name, found["ratio"], "×", COMMAND, **criteria.limit(name)))
        ms = " → ".join(f"{median(found[tree]):.3f}" for tree in ("before", "now"))
        console.print(f"{items:,} items, batch {batch}: {ms} ms, {found['ratio']:.2f} ×", highlight=False)
    for name, value in of_a_list(work.resolve() / "cost-now").items():
        results.record(results.QUALITY, results.row(name, value, "", COMMAND, **criteria.limit(name)))
    results.save(NAME, {"rows": rows}, command=COMMAND)


def of_a_list(folder: Path) -> dict[str, float]:
    """Returns the largest state of a user in KiB and the graph runs of a list, by the smallest artefact of a folder."""
    made = min(folder.glob("synthetic-*/manifest.json"), key=lambda file: int(file.parent.name.split("-")[1]))
    engine = Engine.open(made.parent, device="cpu", threads=1)
    return {
        "strict cost: largest state of a user, KiB": cost_of_an_event(engine)["state_bytes"] / 1024,
        "strict cost: ONNX runs of a list": float(count_runs(engine, jobs(engine)[0])),
    }


if __name__ == "__main__":
    run_command(main)
