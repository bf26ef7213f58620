"""RecTools' SASRec on the same data and split, with the same evaluation as everything here.

    python -m loadtests.peers install rectools
    python -m loadtests.quality.peers --data DIR --work DIR [--split strict] [--factors 64] [--seeds 0,1,2]
        [--minutes 60] [--published]

`--split strict` (the default) keeps the last event but one of everybody out of training, as the published figures do
(`get_val_mask_func_all` in the benchmark's `configs/paper/loo/s3_vanilla.yaml`); `sampled` only that of a sample of
users. `--published` trains as that configuration says: validation by recall@10 after every epoch, up to 200 epochs,
ended after 50 without a better one. The configuration file says 256 wide, the benchmark's README 64 for these data:
`--factors` chooses. `--minutes` bounds the training; the figures say whether patience, epochs or minutes ended it.
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
from loadtests.quality import peer_runs
from loadtests.quality.protocols import STRICT
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
LEAST = 1.05
EPOCHS, PATIENCE = 200, 50
HELD_OUT = {split: held_out for held_out, split in peer_runs.SPLITS.items()}


@app.command()
def peers(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")],
    split: Annotated[
        str, typer.Option(help="Whose last event but one is held out: strict (everybody's) or sampled.")
    ] = STRICT,
    factors: Annotated[int, typer.Option(help="Width of the embeddings.")] = 64,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    minutes: Annotated[float, typer.Option(help="Longest time to train a seed.")] = 60.0,
    published: Annotated[
        bool, typer.Option("--published", help="Choose the epoch as the published configuration does.")
    ] = False,
) -> None:
    """Trains RecTools' SASRec, evaluates its lists, and records them with the seconds of an epoch."""
    if split not in HELD_OUT:
        raise typer.BadParameter(f"{split!r}: choose {' or '.join(HELD_OUT)}", param_hint="--split")
    dataset = Dataset.load(data)
    parts = split_of(TrainConfig(validation_users=0 if split == STRICT else -1), sequences(dataset))
    for seed in (int(part) for part in seeds.split(",")):
        about = {"data": dataset.name, "held_out": HELD_OUT[split], "factors": factors, "seed": seed}
        name = "-".join([dataset.name, HELD_OUT[split], str(factors), str(seed), *(["published"] if published else [])])
        out = work / name
        if not out.with_suffix(".done").exists():
            train(parts, out, factors, seed, minutes, published=published)
        keep(name, {**about, "published": published, **measure(parts, out)})


def train(
    split: Split, out: Path, factors: int, seed: int, minutes: float, epochs: int = EPOCHS, *, published: bool = False
) -> None:
    """Trains once in the peer's own environment.

    Raises:
        PeerError: If the environment is missing or the training fails.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    job = out.with_suffix(".job.npz")
    np.savez(job, allow_pickle=False, **questions(split))
    program = [str(environments.python("rectools")), "-m", "loadtests.peers.rectools_sasrec", str(job), str(out)]
    options = ["--factors", str(factors), "--seed", str(seed), "--minutes", str(minutes), "--epochs", str(epochs)]
    options += ["--patience", str(PATIENCE), *(["--every", "1", "--choose", "recall@10"] if published else [])]
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
        "ended_by": about.get("ended_by"),
        "cpu_seconds_an_epoch": last["cpu_seconds"] / last["epoch"],
        "history": about["history"],
    }


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Records a training in `quality_peers.json`, beside the others."""
    runs = {**((load(NAME) or {}).get("runs", {})), name: found}
    command = "python -m loadtests.quality.peers --data DIR --work DIR"
    save(NAME, {"versions_of_peers": environments.installed_versions("rectools"), "runs": runs}, command=command)
    console.print(f"{name}: {found['test']}", highlight=False)
    beside(found["data"], list(runs.values()), (load(RANKING) or {}).get("parts", {}), command)


def beside(data: str, runs: Sequence[Mapping[str, Any]], ranked: Mapping[str, Any], command: str) -> None:
    """Records a row for each split and measure: our mean through the served graphs ÷ that of the peer.

    Only for splits on which both were trained, and with the peer's strongest configuration on validation. Our part
    comes from `loadtests.quality.ranking`.
    """
    for held_out in peer_runs.SPLITS:
        found = peer_runs.ours(ranked, data, held_out)
        theirs = [run["test"] for run in peer_runs.strongest(runs, data, held_out)]
        if found is None or not theirs:
            continue
        for measure in ("recall@10", "ndcg@10"):
            ratio = found[1]["blend"][measure]["mean"] / float(np.mean([test[measure] for test in theirs]))
            criterion = f"{data}, held out: {held_out}; {measure} by that of RecTools' SASRec"
            record(QUALITY, row(criterion, ratio, "ratio", command, at_least=LEAST))


if __name__ == "__main__":
    run_command(app)
