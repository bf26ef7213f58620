"""RecTools' SASRec on the same data and split, with the same evaluation as everything here.

    python -m loadtests.peers install rectools
    python -m loadtests.quality.peers --data DIR --work DIR [--everybody] [--factors 64] [--seeds 0,1,2] [--minutes 60]

`--everybody` keeps the last event but one of all users out of training, the strictest reading of leave-one-out; without
it only that of a sample of users (`model.data.split.leave_one_out`), the split on which the models here are trained.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from loadtests.common.results import QUALITY, load, record, row, save
from loadtests.peers import environments
from model.data.dataset import Dataset, sequences
from model.data.split import Split
from model.evaluation.evaluate import Histories, Ranker, evaluate
from model.training.config import TrainConfig
from model.training.run_folder import split_of
from service.artifact.array_types import IntArray
from service.cli.outermost import run_command

app = typer.Typer(add_completion=False)
console = Console(stderr=True)
NAME = "quality_peers"
RANKING = "quality_ranking"
# Who is held out for validation → what our own trainings change of the defaults.
OURS: Mapping[str, tuple[str, ...]] = {"sample": (), "everybody": ("validation_users=0",)}
LEAST = 1.05


@app.command()
def peers(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")],
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Keep the last event but one of all users out of training.")
    ] = False,
    factors: Annotated[int, typer.Option(help="Width of the embeddings.")] = 64,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    minutes: Annotated[float, typer.Option(help="Longest time to train a seed.")] = 60.0,
) -> None:
    """Trains RecTools' SASRec, evaluates its lists, and records them with the seconds of an epoch."""
    dataset = Dataset.load(data)
    split = split_of(TrainConfig(validation_users=0 if everybody else -1), sequences(dataset))
    for seed in (int(part) for part in seeds.split(",")):
        name = f"{dataset.name}-{'everybody' if everybody else 'sample'}-{factors}-{seed}"
        out = work / name
        if not out.with_suffix(".done").exists():
            train(split, out, factors, seed, minutes)
        keep(name, measure(split, out), dataset.name, everybody, factors, seed)


def train(split: Split, out: Path, factors: int, seed: int, minutes: float, epochs: int = 200) -> None:
    """Trains once in the peer's own environment.

    Raises:
        PeerError: If the environment is missing or the training fails.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    job = out.with_suffix(".job.npz")
    np.savez(job, allow_pickle=False, **questions(split))
    program = [str(environments.python("rectools")), "-m", "loadtests.peers.rectools_sasrec", str(job), str(out)]
    options = ["--factors", str(factors), "--seed", str(seed), "--minutes", str(minutes), "--epochs", str(epochs)]
    with subprocess.Popen(  # noqa: S603 - our own program
        [*program, *options], env=environments.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        for line in process.stdout:
            if line.startswith("{"):
                console.print(f"{out.name}: {line.strip()}", highlight=False)
    if process.returncode:
        raise environments.PeerError(f"{out.name}: the training ended with exit code {process.returncode}")
    out.with_suffix(".done").touch()


def questions(split: Split) -> dict[str, IntArray]:
    """Returns the visible events of each user with a test question, and the rows of the users asked for validation."""
    log, test = split.sequences, split.test
    parts = [log.item[split.history(test, row)] for row in range(len(test))]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    asked = np.flatnonzero(np.isin(test.users, split.valid.users)).astype(np.int64)
    return {"offsets": offsets, "item": np.concatenate(parts), "asked": asked}


def listed(split: Split, lists: IntArray) -> Ranker:
    """Returns a ranker that answers with the lists [test questions, depth]."""
    row = {int(user): number for number, user in enumerate(split.test.users)}

    def rank(histories: Histories) -> IntArray:
        return lists[[row[int(user)] for user in histories.users]]

    return rank


def measure(split: Split, out: Path) -> dict[str, Any]:
    """Returns figures on the test part, of the epoch chosen on validation, and processor seconds of an epoch."""
    about = json.loads(out.with_suffix(".json").read_text("utf-8"))
    with np.load(out.with_suffix(".npz"), allow_pickle=False) as arrays:
        ranker = listed(split, arrays["lists"].astype(np.int64))
    figures = evaluate({"rectools": ranker}, split, "test", samples=1).systems["rectools"].figures
    last = about["history"][-1]
    return {
        "test": {metric: figures[metric] for metric in ("recall@10", "ndcg@10", "coverage@10")},
        "valid_ndcg@10": about["valid_ndcg@10"],
        "epoch": about["epoch"],
        "epochs": last["epoch"],
        "cpu_seconds_an_epoch": last["cpu_seconds"] / last["epoch"],
        "history": about["history"],
    }


def keep(name: str, found: dict[str, Any], data: str, everybody: bool, factors: int, seed: int) -> None:
    """Records a training in `quality_peers.json`, beside the others."""
    about = {"data": data, "held_out": "everybody" if everybody else "sample", "factors": factors, "seed": seed}
    runs = {**((load(NAME) or {}).get("runs", {})), name: {**about, **found}}
    command = "python -m loadtests.quality.peers --data DIR --work DIR"
    save(NAME, {"versions_of_peers": environments.installed_versions("rectools"), "runs": runs}, command=command)
    console.print(f"{name}: {found['test']}", highlight=False)
    beside(data, list(runs.values()), (load(RANKING) or {}).get("parts", {}), command)


def beside(data: str, runs: Sequence[Mapping[str, Any]], ranked: Mapping[str, Any], command: str) -> None:
    """Records a row for each split and measure: our mean through the served graphs ÷ that of the peer.

    Only for splits on which both were trained. Our part comes from `loadtests.quality.ranking`.
    """
    for held_out, changed in OURS.items():
        ours = ranked.get(", ".join([data, *changed]), {}).get("means")
        theirs = [run["test"] for run in runs if run["data"] == data and run["held_out"] == held_out]
        if ours is None or not theirs:
            continue
        for measure in ("recall@10", "ndcg@10"):
            ratio = ours["blend"][measure]["mean"] / float(np.mean([test[measure] for test in theirs]))
            criterion = f"{data}, held out: {held_out}; {measure} by that of RecTools' SASRec"
            record(QUALITY, row(criterion, ratio, "ratio", command, at_least=LEAST))


if __name__ == "__main__":
    run_command(app)
