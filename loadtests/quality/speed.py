"""Seconds of processor time an epoch takes, beside RecTools' SASRec of equal size, in one run.

    python -m loadtests.peers install rectools
    python -m loadtests.quality.speed --data DIR --work DIR [--rounds 3]

Both train the same SASRec (one block, one head, 64 wide, dropout .2, 256 negatives) on the same users with one thread;
an epoch of one follows an epoch of the other, and the first of each is not counted.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.quality import peers
from model.data.dataset import Dataset
from model.training.allocator import keep_freed_memory
from model.training.config import TrainConfig
from model.training.trainer import Trainer
from service.cli.outermost import run_command

NAME = "quality_speed"
COMMAND = "python -m loadtests.quality.speed --data DIR --work DIR"
SIZE: dict[str, Any] = {"d_model": 64, "layers": 1, "heads": 1, "d_head": 64, "d_ff": 64, "dropout": 0.2}

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def speed(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder for the runs; it is removed at the end.")],
    rounds: Annotated[int, typer.Option(min=1, help="Timed epochs of each.")] = 3,
) -> None:
    """Times both trainers and records the ratio."""
    dataset = Dataset.load(data)
    settings = TrainConfig(encoder="sasrec", negatives=256, network=SIZE)
    gpt4rec = TrainConfig(negatives=256)
    work.mkdir(parents=True, exist_ok=True)
    trainers = {
        "sasrec, here": Trainer(dataset, data, work / "speed-sasrec", settings),
        "gpt4rec": Trainer(dataset, data, work / "speed-gpt4rec", gpt4rec),
    }
    taken: dict[str, list[float]] = {name: [] for name in ("sasrec, RecTools", *trainers)}
    for number in range(rounds + 1):
        one = {"sasrec, RecTools": theirs(trainers["sasrec, here"], work / "speed-rectools")}
        one |= {name: ours(trainer) for name, trainer in trainers.items()}
        console.print(f"round {number}: {one}", highlight=False)
        for name, seconds in one.items() if number else ():
            taken[name].append(seconds)
    for folder in ("speed-sasrec", "speed-gpt4rec"):
        shutil.rmtree(work / folder)
    keep(dataset.name, taken)


def ours(trainer: Trainer) -> float:
    """Returns seconds of an epoch of one of our trainers, without validation."""
    torch.set_num_threads(1)
    keep_freed_memory()
    began = time.process_time()
    trainer.train_epoch()
    return time.process_time() - began


def theirs(trainer: Trainer, out: Path) -> float:
    """Returns seconds of the first epoch of RecTools' training in its own process, without start-up and validation."""
    peers.train(trainer.split, out, 64, 0, 60.0, epochs=1)
    return float(json.loads(out.with_suffix(".json").read_text("utf-8"))["history"][-1]["cpu_seconds"])


def keep(data: str, taken: dict[str, list[float]]) -> None:
    """Records the figures and the rows."""
    found: dict[str, dict[str, Any]] = {
        name: {"seconds": seconds, "median": median(seconds)} for name, seconds in taken.items()
    }
    results.save(NAME, {"data": data, "size": SIZE, "epochs": found}, command=COMMAND)
    for name in ("sasrec, here", "gpt4rec"):
        ratio = found["sasrec, RecTools"]["median"] / found[name]["median"]
        criterion = f"{data}: seconds an epoch, RecTools' SASRec / {name}"
        results.record(results.QUALITY, results.row(criterion, ratio, "times", COMMAND))


if __name__ == "__main__":
    run_command(app)
