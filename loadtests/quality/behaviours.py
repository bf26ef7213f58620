"""What streams by behaviour, their losses and the text of queries are worth, against one mixed stream.

    python -m loadtests.quality.behaviours known --work DIR [--seeds 0] [--epochs 20] [--users 800] [--only "a;b"]
    python -m loadtests.quality.behaviours log --data DIR --work DIR [--seeds 0] [--epochs 8] [--only "a;b"]

`known` makes a log whose truth is known (`behaviour_logs`) and judges the variants by `CRITERIA`, which were written
down before anything was measured. `log` takes a data set (Complete Journey, or a shop's log with searches); every
variant is compared with `mixed`, paired by user. All trainings read the same events in the same window, and what is
trained already is in `--work`. Rows go into loadtests/results/memory.json. `streams, sentences` needs the sentence
encoder (`make texts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from rich.console import Console

from loadtests.common.results import MEMORY, record, row
from loadtests.quality.behaviour_logs import known_log
from loadtests.quality.methods import trained
from model.data.dataset import Dataset, sequences
from model.evaluation.bootstrap import paired_bootstrap
from model.evaluation.evaluate import evaluate
from model.evaluation.rankers import network_ranker
from model.network.behaviour_streams import STREAMS
from model.network.encoders.behaviours import Behaviours
from model.training.config import TrainConfig
from model.training.run_folder import Run
from service.artifact.array_types import Float64Array
from service.artifact.features import Vocabulary
from service.cli.outermost import run_command

app = typer.Typer(add_completion=False)
console = Console(stderr=True)

_BUCKETS = 4096
_LOSSES = {"behaviour_losses": {"click": 0.1, "purchase": 0.3, "search": 0.3}}
# Name → settings. One mixed stream is SASRec: the same blocks over all events.
VARIANTS: dict[str, dict[str, Any]] = {
    "mixed": {"encoder": "sasrec"},
    "mixed, queries": {"encoder": "sasrec", "network": {"query_buckets": _BUCKETS}},
    "streams": {"encoder": "behaviours"},
    "streams, losses": {"encoder": "behaviours", **_LOSSES},
    "streams, queries": {"encoder": "behaviours", "network": {"query_buckets": _BUCKETS}},
    "streams, sentences": {"encoder": "behaviours", "network": {"query_buckets": _BUCKETS, "query_vectors": 10_000}},
    "all": {"encoder": "behaviours", "network": {"query_buckets": _BUCKETS}, **_LOSSES},
}
# Variant, questions and the least or the most NDCG@10 on the log whose truth is known.
CRITERIA: tuple[tuple[str, str, str, float], ...] = (
    ("mixed", "after a search", "at_most", 0.2),
    ("streams", "after a search", "at_most", 0.2),
    ("mixed, queries", "after a search", "at_least", 0.7),
    ("streams, queries", "after a search", "at_least", 0.7),
    ("streams, sentences", "after a search", "at_least", 0.7),
    ("streams", "without a search", "at_least", 0.7),
)

Work = Annotated[Path, typer.Option(help="Folder of the runs; existing ones are reused.")]
Seeds = Annotated[str, typer.Option(help="Seeds, separated by commas.")]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs of every training.")]
Only = Annotated[str, typer.Option(help="Names of variants, separated by semicolons; all by default.")]


@app.command()
def known(
    work: Work,
    seeds: Seeds = "0",
    epochs: Epochs = 20,
    users: Annotated[int, typer.Option(min=100, help="Users of the log.")] = 800,
    only: Only = "",
) -> None:
    """Trains the variants on the log whose truth is known, and judges them by the criteria."""
    dataset = known_log(users, items=60, clicks=4)
    dataset.save(work / "known")
    wanted = _chosen(only, [name for name, *_ in CRITERIA])
    gains = {name: _mean_gains(dataset, work, name, seeds, epochs, window=20, exclude=False) for name in wanted}
    command = f"{_command('known')} --work DIR --epochs {epochs}"
    _keep_weights("known log", work, wanted, seeds, command)
    for name, questions, side, limit in CRITERIA:
        if name not in gains:
            continue
        after = np.arange(users) % 2 == 0
        value = float(gains[name][after if questions == "after a search" else ~after].mean())
        judged = row(
            f"behaviours, known log: {name}, {questions}",
            value,
            "NDCG@10",
            command,
            **{side: limit},
        )
        record(MEMORY, judged)
        console.print(f"{judged.criterion}: {judged.value} ({judged.limit}) {judged.holds}")


@app.command()
def log(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    work: Work,
    seeds: Seeds = "0",
    epochs: Epochs = 8,
    only: Only = "",
) -> None:
    """Trains the variants on a log, and compares each with the mixed stream."""
    dataset = Dataset.load(data)
    wanted = _chosen(only, VARIANTS)
    if dataset.searches is None:
        wanted = [name for name in wanted if "query_buckets" not in VARIANTS[name].get("network", {})]
    gains = {
        name: _mean_gains(dataset, work, name, seeds, epochs, window=50, exclude=None)
        for name in dict.fromkeys(["mixed", *wanted])
    }
    command = f"{_command('log')} --data {data.name} --work DIR --epochs {epochs}"
    _keep_weights(dataset.name, work, list(gains), seeds, command)
    for name, own in gains.items():
        where = f"behaviours, {dataset.name}: {name}"
        record(MEMORY, row(where, float(own.mean()), "NDCG@10", command))
        if name == "mixed":
            continue
        interval = paired_bootstrap(own, gains["mixed"])
        record(MEMORY, row(f"{where} − mixed, lower end", interval.low, "NDCG@10", command, above=0.0))
        record(MEMORY, row(f"{where} − mixed, upper end", interval.high, "NDCG@10", command))
        console.print(f"{where}: {own.mean():.4f}, − mixed: {interval.low:+.4f} to {interval.high:+.4f}")


def _chosen(only: str, names: Iterable[str]) -> list[str]:
    """Returns the names that were asked for; all of `names` where none was.

    Raises:
        typer.BadParameter: A name is unknown.
    """
    names = list(dict.fromkeys(names))
    asked = [name.strip() for name in only.split(";") if name.strip()]
    if unknown := [name for name in asked if name not in names]:
        raise typer.BadParameter(f"{'; '.join(unknown)}: choose from {'; '.join(names)}", param_hint="--only")
    return asked or names


def _mean_gains(
    dataset: Dataset, work: Path, name: str, seeds: str, epochs: int, *, window: int, exclude: bool | None
) -> Float64Array:
    """NDCG@10 of every test question, the mean over the seeds."""
    found = []
    for seed in (int(text) for text in seeds.split(",")):
        folder = _folder(work, name, seed)
        own = VARIANTS[name]
        network = {"window": window, "d_model": 64, "d_ff": 128, "layers": 1, **own.get("network", {})}
        settings = {**own, "network": network, "size": "small", "seed": seed, "max_epochs": epochs}
        if exclude is not None:
            settings["repeats"] = not exclude
        trained(dataset, work, folder, TrainConfig(**settings))
        run = Run.open(folder)
        split = run.split(dataset)
        vocabulary = _vocabulary(run, dataset)
        rank = network_ranker(run.model(), vocabulary)
        result = evaluate({name: rank}, split, "test", exclude_history=not run.config.repeats, samples=1)
        found.append(result.systems[name].per_user["ndcg@10"])
    mean: Float64Array = np.mean(found, axis=0)
    return mean


def _keep_weights(where: str, work: Path, names: Iterable[str], seeds: str, command: str) -> None:
    """Records how much of h each stream has, the learned α, β and γ, as means over the seeds."""
    for name in names:
        if VARIANTS[name]["encoder"] != "behaviours":
            continue
        encoders = [Run.open(_folder(work, name, int(seed))).model().encoder for seed in seeds.split(",")]
        weights = np.mean([cast(Behaviours, one).weights().detach().numpy() for one in encoders], axis=0)
        for stream, weight in zip(STREAMS, weights.tolist(), strict=True):
            record(MEMORY, row(f"behaviours, {where}: {name}, weight of the stream {stream}", weight, "of h", command))


def _folder(work: Path, name: str, seed: int) -> Path:
    return work / f"{name.replace(', ', '-')}-{seed}"


def _vocabulary(run: Run, dataset: Dataset) -> Vocabulary:
    return run.vocabulary(sequences(dataset).item_ids)


def _command(which: str) -> str:
    return f"python -m loadtests.quality.behaviours {which}"


if __name__ == "__main__":
    run_command(app)
