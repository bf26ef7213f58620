"""One trial of the cold-item measurement: items held out with all their events, and what finds them afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console

from export.from_run import export_run
from loadtests.quality.cold_live import describe, live_ranker
from loadtests.quality.network_alone import rank_by_path
from loadtests.quality.ranks import DECODING
from loadtests.quality.strategies import artifact_of
from model.cli.training_progress import fit
from model.data.dataset import Dataset, Sequences, sequences
from model.data.split import Holdout, Split
from model.evaluation.evaluate import DEPTH, Histories, Ranker, evaluate
from model.evaluation.rankers import engine_ranker
from model.texts.sentence_vectors import item_text_vectors
from model.training.config import TrainConfig
from model.training.run_folder import CHECKPOINT, Run
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer
from service.artifact.array_types import IntArray
from service.common.atomic_files import write_aside
from service.engine.engine import Engine

MEASURES = ("recall@10", "recall@20", "ndcg@10")
EPOCHS = 1000  # as many as the minutes hold
VARIANTS: dict[str, dict[str, Any]] = {
    "id": {"text": "none"},
    "codes": {"text": "codes"},
    "content": {"text": "items"},
}
LIKE, NEAREST = "like", "nearest"
WAYS = (*VARIANTS, LIKE, NEAREST)

console = Console(stderr=True)


@dataclass(frozen=True)
class Trial:
    """Items that are held out, and the trainings without them.

    Attributes:
        dataset: The whole data set.
        held_out: The items without events.
        folder: Folder of the trainings and of what was measured.
        settings: What all trainings change of the defaults.
        minutes: Longest training.
    """

    dataset: Dataset
    held_out: Sequence[str]
    folder: Path
    settings: Mapping[str, Any]
    minutes: float

    @property
    def reduced(self) -> Path:
        """Folder of the data set without the events of the held-out items; written once."""
        where = self.folder / "data"
        if not (where / "meta.json").exists():
            without(self.dataset, self.held_out).save(where)
        return where

    def ask(self, seed: int, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the figures of each way to know an item; what is measured already is read."""
        for name in names:
            kept = self.folder / f"{name}-{seed}.json"
            if not kept.exists():
                write_aside(kept, json.dumps(self._way(name)(seed)).encode())
            figures: dict[str, Any] = json.loads(kept.read_text("utf-8"))
            console.print(f"{self.folder.name}, seed {seed}, {name}: {figures['figures']}", highlight=False)
            yield name, figures

    def _way(self, name: str) -> Callable[[int], dict[str, Any]]:
        dataset, reduced, items = self.dataset, self.reduced, self.held_out
        if name == LIKE:
            return lambda seed: described(dataset, reduced, self.folder / f"id-{seed}", items)
        if name == NEAREST:
            return lambda seed: by_texts(dataset, reduced, self.folder / f"id-{seed}", items)
        return lambda seed: measured(
            dataset,
            reduced,
            self.folder / f"{name}-{seed}",
            TrainConfig(seed=seed, max_epochs=EPOCHS).updated({**self.settings, **VARIANTS[name]}),
            self.minutes,
            items,
        )


def cold_items(dataset: Dataset, share: float) -> list[str]:
    """Draws a share of the items with events, always the same."""
    seen, drawn = _drawn(dataset)
    return [str(item) for item in seen[np.sort(drawn[: max(1, round(share * len(seen)))])]]


def folds_of_items(dataset: Dataset, folds: int) -> list[list[str]]:
    """Divides the items with events into folds, always the same; each item is in one of them."""
    seen, drawn = _drawn(dataset)
    return [[str(item) for item in seen[np.sort(part)]] for part in np.array_split(drawn, folds)]


def _drawn(dataset: Dataset) -> tuple[npt.NDArray[np.object_], IntArray]:
    """Returns the items with events, and their places in another, fixed order."""
    seen = dataset.events["item_id"].unique().sort().to_numpy()
    return seen, np.random.default_rng(0).permutation(len(seen))


def without(dataset: Dataset, items: Sequence[str]) -> Dataset:
    """Returns the data set without any event of `items`; the catalogue keeps them, and all users their rows."""
    events = dataset.events.filter(~pl.col("item_id").is_in(list(items)))
    return Dataset.of(
        dataset.name,
        events,
        dataset.items,
        dataset.users.filter(pl.col("user_id").is_in(events["user_id"].unique().implode())),
        has_time=dataset.has_time,
        category_kind=dataset.category_kind,
        vectors=dataset.vectors,
    )


def cold_questions(dataset: Dataset, reduced: Dataset, train: Sequences, items: Sequence[str]) -> Split:
    """Returns users whose last event is one of `items`, asked after all their other events except those of `items`."""
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
    """Trains once and asks both kinds of questions."""
    log = Dataset.load(reduced)
    trainer = Trainer(log, reduced, folder, settings, resume=(folder / CHECKPOINT).exists())
    fit(trainer, console, TimeLimit(minutes, used_s=trainer.progress.seconds))
    with console.status("exporting and evaluating") as status:
        artifact, report = export_run(folder, folder / "artifacts", "float32", reduced, say=status.update)
        engine = Engine.open(artifact, device="cpu", threads=1)
        unseen = cold_questions(dataset, log, trainer.split.train, items)
        ranker, generated = (engine_ranker(engine, DECODING, signals=signals) for signals in (True, False))
        found = asked(engine, ranker, generated, trainer.split, unseen)
    return {
        **found,
        "weights": report["ranker"]["weights"],
        "epochs": trainer.progress.epoch,
        "seconds": trainer.progress.seconds,
    }


def described(dataset: Dataset, reduced: Path, folder: Path, items: Sequence[str]) -> dict[str, Any]:
    """Asks both kinds of questions of a model without texts that serves the held-out items as new ones."""
    log = Dataset.load(reduced)
    split = Run.open(folder).split(log)
    engine = Engine.open(artifact_of(folder), device="cpu", threads=1)
    meant = describe(engine, dataset, log, split.train, items, reduced)
    unseen = cold_questions(dataset, log, split.train, items)
    ranker, generated = (live_ranker(engine, DECODING, meant, signals=signals) for signals in (True, False))
    return asked(engine, ranker, generated, split, unseen)


def by_texts(dataset: Dataset, reduced: Path, folder: Path, items: Sequence[str]) -> dict[str, Any]:
    """Asks both kinds of questions of the texts alone; the split is that of the run in `folder`."""
    log = Dataset.load(reduced)
    split = Run.open(folder).split(log)
    ranker = nearest_ranker(item_text_vectors(log, split.sequences.item_ids, reduced))
    return told({"warm": (ranker, split), "cold": (ranker, cold_questions(dataset, log, split.train, items))})


def nearest_ranker(vectors: npt.NDArray[np.float32]) -> Ranker:
    """Ranks items by the cosine of their texts, [items, dim] of length 1 or 0, with the mean of the history's."""

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), DEPTH), -1, np.int64)
        for i in range(len(histories)):
            alike = vectors @ vectors[histories.items(i)].mean(axis=0)
            alike[histories.excluded(i)] = -np.inf
            best = np.argsort(-alike, kind="stable")[:DEPTH]
            best = best[np.isfinite(alike[best])]
            lists[i, : len(best)] = best
        return lists

    return rank


def asked(engine: Engine, ranker: Ranker, generated: Ranker, warm: Split, cold: Split) -> dict[str, Any]:
    """Returns means, numbers of questions and each user's values of every part.

    Args:
        engine: The artefact. It ranks by the path alone afterwards.
        ranker: Asks the engine as the service does.
        generated: Asks it without the signals of the users.
        warm: Questions for items with events.
        cold: Questions for the others.
    """
    found = told({"warm": (ranker, warm), "cold": (ranker, cold)})
    rank_by_path(engine)
    alone = told({"path": (generated, cold)})
    return {key: found[key] | alone[key] for key in found}


def told(parts: Mapping[str, tuple[Ranker, Split]]) -> dict[str, Any]:
    """Means, numbers of questions, each question's values and the items asked for, of every part."""
    systems = {
        part: evaluate({"ranker": ranker}, split, "test", samples=1).systems["ranker"]
        for part, (ranker, split) in parts.items()
    }
    return {
        "figures": {part: {m: one.figures[m] for m in MEASURES} for part, one in systems.items()},
        "questions": {part: len(split.test) for part, (_, split) in parts.items()},
        "of_users": {part: {m: one.per_user[m].tolist() for m in MEASURES} for part, one in systems.items()},
        "targets": {part: split.test.target.tolist() for part, (_, split) in parts.items()},
        "users": {
            part: [split.sequences.user_ids[user] for user in split.test.users] for part, (_, split) in parts.items()
        },
    }
