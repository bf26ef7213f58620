"""Items that nobody has used yet: a tenth of the catalogue is held out of training, with all its events.

    python -m loadtests.quality.cold --data DIR --work DIR [--seeds 0,1,2] [--minutes 2]

Three trainings a seed: `id` (no texts), `codes` (texts place the semantic ids) and `content` (texts are mixed into the
item embeddings as well). Cold questions are users whose last event is a held-out item, after their other events; warm
ones are the usual test of the remaining log. Both rank the whole catalogue by the dense score. What is measured already
is not trained again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from rich.console import Console

from export.features import Vocabulary
from loadtests import results
from loadtests.quality.variants import spread
from model.bootstrap import paired_bootstrap
from model.cli import fit
from model.config import TrainConfig
from model.data import Dataset, Sequences, sequences
from model.data_split import Holdout, Split
from model.evaluate import Ranker, evaluate
from model.ranking import network_ranker
from model.run import Run
from model.train import CHECKPOINT, Trainer

NAME = "quality_cold"
MEASURES = ("recall@10", "recall@20", "ndcg@10")
VARIANTS: dict[str, dict[str, Any]] = {
    "id": {"text": "none"},
    "codes": {"text": "minilm", "content_gate": False},
    "content": {"text": "minilm", "content_gate": True},
}
COMMAND = "python -m loadtests.quality.cold --data DIR --work DIR"

app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def cold(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data` whose items have texts.")],
    work: Annotated[Path, typer.Option(help="Folder of the runs.")],
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = "0,1,2",
    minutes: Annotated[float, typer.Option(min=0.01, help="Longest training.")] = 2.0,
    share: Annotated[float, typer.Option(min=0.01, max=0.5, help="Of the items, held out.")] = 0.1,
) -> None:
    """Train, rank cold and warm questions, and record the means over the seeds."""
    dataset = Dataset.load(data)
    found: dict[str, dict[str, Any]] = {}
    for seed in (int(part) for part in seeds.split(",")):
        held_out = cold_items(dataset, share, seed)
        folder = work / f"cold-{dataset.name}-{minutes:g}m-{share:g}" / str(seed)
        reduced = folder / "data"
        if not (reduced / "meta.json").exists():
            without(dataset, held_out).save(reduced)
        for name, values in VARIANTS.items():
            kept = folder / f"{name}.json"
            if not kept.exists():
                settings = TrainConfig(seed=seed).updated(values)
                figures = measured(dataset, reduced, folder / name, settings, minutes, held_out)
                kept.write_text(json.dumps(figures), "utf-8")
            found.setdefault(name, {})[str(seed)] = json.loads(kept.read_text("utf-8"))
            console.print(f"{seed} {name}: {found[name][str(seed)]['figures']}", highlight=False)
    summarise(dataset.name, found, minutes, share)


def cold_items(dataset: Dataset, share: float, seed: int) -> list[str]:
    """A share of the items with events, drawn by the seed."""
    seen = dataset.events["item_id"].unique().sort().to_numpy()
    drawn = np.random.default_rng(seed).permutation(len(seen))[: max(1, round(share * len(seen)))]
    return [str(item) for item in seen[np.sort(drawn)]]


def without(dataset: Dataset, items: Sequence[str]) -> Dataset:
    """The data set without any event of `items`; the catalogue keeps them, and all users their rows."""
    events = dataset.events.filter(~pl.col("item_id").is_in(list(items)))
    return Dataset.of(
        dataset.name,
        events,
        dataset.items,
        dataset.users.filter(pl.col("user_id").is_in(events["user_id"].unique().implode())),
        has_time=dataset.has_time,
        category_kind=dataset.category_kind,
    )


def cold_questions(dataset: Dataset, reduced: Dataset, train: Sequences, items: Sequence[str]) -> Split:
    """Users whose last event is one of `items`, asked after all their other events but those of `items`."""
    log = sequences(reduced)
    index = {item: i for i, item in enumerate(log.item_ids)}
    row = {user: u for u, user in enumerate(log.user_ids)}
    last = dataset.events.group_by("user_id", maintain_order=True).agg(pl.col("item_id").last())
    asked = last.filter(pl.col("item_id").is_in(list(items)) & pl.col("user_id").is_in(log.user_ids))
    users = np.array([row[user] for user in asked["user_id"]], np.int64)
    test = Holdout(users, log.offsets[users + 1], np.array([index[item] for item in asked["item_id"]], np.int64))
    return Split("leave_one_out", log, train, Holdout(*(np.zeros(0, np.int64) for _ in range(3))), test)


def measured(
    dataset: Dataset, reduced: Path, folder: Path, settings: TrainConfig, minutes: float, items: Sequence[str]
) -> dict[str, Any]:
    """One training, and both kinds of questions."""
    log = Dataset.load(reduced)
    trainer = Trainer(log, reduced, folder, settings, resume=(folder / CHECKPOINT).exists())
    fit(trainer, console, minutes)
    run = Run.open(folder)
    ranker = network_ranker(run.model(), Vocabulary.of(trainer.split.train.item_ids, run.context, log.has_time))
    parts = {"warm": trainer.split, "cold": cold_questions(dataset, log, trainer.split.train, items)}
    found = {part: _ranked(ranker, split) for part, split in parts.items()}
    return {
        "figures": {part: one["figures"] for part, one in found.items()},
        "questions": {part: len(split.test) for part, split in parts.items()},
        "warm_ndcg": found["warm"]["users"],
        "epochs": trainer.progress.epoch,
        "seconds": trainer.progress.seconds,
    }


def _ranked(ranker: Ranker, split: Split) -> dict[str, Any]:
    system = evaluate({"ranker": ranker}, split, "test", samples=1).systems["ranker"]
    figures = {measure: system.figures[measure] for measure in MEASURES}
    return {"figures": figures, "users": system.per_user["ndcg@10"].tolist()}


def summarise(label: str, found: dict[str, dict[str, Any]], minutes: float, share: float) -> None:
    """Means with 95 % intervals, warm differences to `id` paired by user, and the rows of the criteria."""
    means = {
        name: {
            part: {measure: spread([run["figures"][part][measure] for run in runs.values()]) for measure in MEASURES}
            for part in ("cold", "warm")
        }
        for name, runs in found.items()
    }
    base = _over_users(found["id"])
    paired = {name: paired_bootstrap(_over_users(runs), base) for name, runs in found.items() if name != "id"}
    payload = {
        "data": label,
        "minutes": minutes,
        "share": share,
        "means": means,
        "questions": {name: {seed: run["questions"] for seed, run in runs.items()} for name, runs in found.items()},
        "epochs": {name: {seed: run["epochs"] for seed, run in runs.items()} for name, runs in found.items()},
        "warm_ndcg_difference": {
            name: {"difference": d.difference, "low": d.low, "high": d.high, "p_value": d.p_value}
            for name, d in paired.items()
        },
    }
    results.save(NAME, payload, command=COMMAND)
    for name, parts in means.items():
        for part in ("cold", "warm"):
            for measure in ("recall@10", "recall@20"):
                mean = parts[part][measure]["mean"]
                assert mean is not None  # noqa: S101 - a mean of at least one seed
                criterion = f"{label}: {measure} of {part} items, {name}"
                results.record(results.QUALITY, results.row(criterion, mean, "", COMMAND))


def _over_users(runs: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[questions] of all seeds, one seed after the other."""
    return np.concatenate([np.array(runs[seed]["warm_ndcg"], np.float64) for seed in sorted(runs)])


if __name__ == "__main__":
    app()
