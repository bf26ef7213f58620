"""What a list costs, as a multiple of what it cost at an older commit, at equal W, and what the host does beside it.

    python -m loadtests.quality.cost --before TREE --work DIR [--sizes 1700,12000,1000000] [--rounds 15]

TREE is a checkout of the older commit. For each size of catalogue and of batch a process of either tree opens a
synthetic artefact of its own format (random weights, realistic codes) and decodes lists of ten with a beam of 5 on one
thread. This tree's artefact has all signals, each with a weight, and its lists come with the signals of users with full
histories: kept by the profile, and computed anew as after an event. The three cases take turns, so that other work of
the machine affects all alike. A figure is the ratio of the medians of processor time; `criteria.COST` says which one
counts.

Then the host's part is timed by itself for each size: the signals of a user after an event, and the rung below the
model, from the history to the list. The stored state of a user with more events than the window holds, and the graph
runs of a list, are taken from the smallest artefact.

With the defaults the command takes a few minutes, most of them for the artefact of a million items, which stays in DIR
(7 GB). `--sizes 300 --rounds 1 --runs 2` tries it in seconds; rows that no criterion names are recorded all the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.engine import decode_worker
from loadtests.engine.decoder_cases import STATES, count_runs, jobs
from loadtests.engine.user_cases import Users, processor_ms
from loadtests.quality import criteria
from loadtests.quality.variants import cost as cost_of_an_event
from service.artifact.array_types import Float64Array
from service.cli.outermost import run_command
from service.engine.engine import Engine

NAME = "quality_cost"
COMMAND = "python -m loadtests.quality.cost --before TREE --work DIR"
HERE = Path(__file__).resolve().parents[2]
SIZES, ROUNDS, RUNS = ",".join(map(str, criteria.COST_SIZES)), 15, 40
# Up to this many items, batches of 32 are timed as well.
BATCHES_UP_TO = 100_000
NOW, AFTER_AN_EVENT, BEFORE = "now", "after_an_event", "before"

console = Console(stderr=True)


class Worker:
    """A process of one working tree that decodes on request."""

    def __init__(self, process: subprocess.Popen[str], tree: Path) -> None:
        self._process, self._tree = process, tree
        self._line()

    def decode(self, runs: int, *, fresh: bool = False) -> float:
        """Returns the median processor milliseconds of so many decoder runs, each of the first lists after an event."""
        assert self._process.stdin is not None  # noqa: S101 - asked for below
        self._process.stdin.write(f"{runs} fresh\n" if fresh else f"{runs}\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - asked for below
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the decoder of {self._tree} ended with exit code {self._process.wait()}")
        return line


@contextmanager
def worker(tree: Path, folder: Path, items: int, batch: int, *, fused: bool = False) -> Iterator[Worker]:
    """Starts a worker with the code of `tree`, and ends it.

    Raises:
        RuntimeError: It cannot be started; its own words are on the standard error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The worker is always this tree's file: -P keeps its folder, and with it this tree, off the path of imports.
    command = [sys.executable, "-P", decode_worker.__file__, str(folder), "--items", str(items), "--batch", str(batch)]
    command += ["--fused"] if fused else []
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(  # noqa: S603 - our own program
        command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Worker(process, tree)
        finally:
            process.terminate()


def compare(before: Path, work: Path, items: int, batch: int, rounds: int, runs: int) -> dict[str, Any]:
    """Times lists of both trees in turns.

    Returns:
        The milliseconds of each round, and the ratios of the medians, of lists with kept signals (`ratio`) and of the
        first lists after an event.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(worker(HERE, now_folder(work), items, batch, fused=True))
        theirs = stack.enter_context(worker(before.resolve(), work.resolve() / "cost-before", items, batch))
        cases = {
            NOW: lambda: ours.decode(runs),
            AFTER_AN_EVENT: lambda: ours.decode(runs, fresh=True),
            BEFORE: lambda: theirs.decode(runs),
        }
        taken: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds + 1):
            for name in list(cases)[:: 1 if number % 2 else -1]:
                taken[name].append(cases[name]())
    # The first round warms up.
    ms = {name: values[1:] for name, values in taken.items()}
    ratio = {name: median(ms[name]) / median(ms[BEFORE]) for name in (NOW, AFTER_AN_EVENT)}
    return {"items": items, "batch": batch, **ms, "ratio": ratio[NOW], "ratio_after_an_event": ratio[AFTER_AN_EVENT]}


def now_folder(work: Path) -> Path:
    """Returns the folder of this tree's artefacts."""
    return work.resolve() / "cost-now"


def of_the_host(folder: Path, items: int, runs: int) -> dict[str, Any]:
    """Times what the host computes for a user, in processor milliseconds.

    Args:
        folder: Folder of this tree's artefacts.
        items: Size of the catalogue.
        runs: Calls to time.

    Returns:
        p50 and p99 of the signals of a user after an event and of the list of the rung below the model, and for how
        many items a user's signals speak (median).
    """
    engine = Engine.open(next(folder.glob(f"fused-{items}-*")), device="cpu", threads=1)
    users = Users(engine)
    rung = processor_ms(users.rung, runs)
    # Every profile computes once.
    profiles = [users.after_an_event(number) for number in range(STATES + runs)]
    signals = processor_ms(lambda number: profiles[number].signals(profiles[number].history), runs)
    speak = [len(profile.signals(profile.history)) for profile in users.profiles]
    return {"items": items, "signals": _quantiles(signals), "rung": _quantiles(rung), "speak": median(speak)}


def _quantiles(ms: Float64Array) -> dict[str, float]:
    return {f"p{of}": round(float(np.percentile(ms, of)), 4) for of in (50, 99)}


def of_a_list(folder: Path) -> dict[str, float]:
    """Returns the largest state of a user in KiB and the graph runs of a list, by the smallest artefact of a folder."""
    made = min(folder.glob("fused-*/manifest.json"), key=lambda file: int(file.parent.name.split("-")[1]))
    engine = Engine.open(made.parent, device="cpu", threads=1)
    return {
        "strict cost: largest state of a user, KiB": cost_of_an_event(engine)["state_bytes"] / 1024,
        "strict cost: ONNX runs of a list": float(count_runs(engine, jobs(engine)[0])),
    }


def main(
    before: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Checkout of the older commit.")],
    work: Annotated[Path, typer.Option(help="Folder of the synthetic artefacts.")],
    sizes: Annotated[str, typer.Option(help="Sizes of the catalogue, separated by commas.")] = SIZES,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each case.")] = ROUNDS,
    runs: Annotated[int, typer.Option(min=1, help="Decoder runs of a round.")] = RUNS,
) -> None:
    """Times lists of both trees and what the host does, and records the figures."""
    wanted = [int(size) for size in sizes.split(",")]
    rows = []
    for items, batch in [(size, batch) for size in wanted for batch in ((1, 32) if size <= BATCHES_UP_TO else (1,))]:
        found = compare(before, work, items, batch, rounds, runs if batch == 1 else max(1, runs // 8))
        rows.append(found)
        case = f"{items:,} items, batch {batch}"
        record(f"{criteria.COST}: {case}", found["ratio"], "×")
        record(f"{criteria.COST}, first list after an event: {case}", found["ratio_after_an_event"], "×")
        ms = ", ".join(f"{name} {median(found[name]):.3f}" for name in (BEFORE, NOW, AFTER_AN_EVENT))
        console.print(f"{case}: {ms} ms, {found['ratio']:.2f} ×", highlight=False)
    host = [of_the_host(now_folder(work), size, rounds * runs) for size in wanted]
    for one in host:
        record(f"{criteria.RUNG}: {one['items']:,} items", one["rung"]["p99"], "ms")
        console.print(one, highlight=False)
    for name, value in of_a_list(now_folder(work)).items():
        record(name, value, "")
    results.save(NAME, {"rows": rows, "host": host}, command=COMMAND)


def record(name: str, value: float, unit: str) -> None:
    """Records a row, with the limit of its criterion."""
    limit: Mapping[str, float] = criteria.limit(name)
    results.record(results.QUALITY, results.row(name, value, unit, COMMAND, **limit))


if __name__ == "__main__":
    run_command(main)
