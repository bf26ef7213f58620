"""Lists of an evaluation by several processes: batch by batch the same as by one.

The processes take turns over the batches in which one process goes through the questions, and every figure is computed
afterwards from all lists in their order. So each figure is that of one process, to the last digit.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from model.data.dataset import Dataset, sequences
from model.data.split import Split
from model.errors import RunError
from model.evaluation.evaluate import (
    BATCH,
    DEPTH,
    Part,
    Ranker,
    item_cf_ranker,
    popularity_ranker,
    questions_of,
    ranked_batch,
)
from model.evaluation.rankers import engine_ranker, network_ranker
from model.evaluation.signal_rankers import signal_rankers
from model.training.config import TrainConfig
from model.training.run_folder import Run, split_of
from service.artifact.array_types import IntArray
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.popularity import Popularity
from service.engine.decoding import Decoding, Strategy
from service.engine.factory import open_engine


@dataclass(frozen=True, eq=False)
class Opened:
    """What is evaluated.

    Attributes:
        dataset: The data set.
        split: Its split.
        systems: Rankers by name; the first is compared with the others.
        exclude_history: Whether items of the history are left out of the lists.
    """

    dataset: Dataset
    split: Split
    systems: Mapping[str, Ranker]
    exclude_history: bool


class Source(Protocol):
    """Says what to evaluate in a few words that another process understands."""

    def open(self) -> Opened:
        """Reads the files."""
        ...


@dataclass(frozen=True)
class ArtifactSource:
    """The exported graphs, and the fallback scorers of the artefact.

    Attributes:
        folder: The artefact.
        data: The data set that the model was trained on.
        strategy: The decoding.
        signals: Whether each signal of the artefact is evaluated as well.
    """

    folder: Path
    data: Path
    strategy: Strategy
    signals: bool

    def open(self) -> Opened:
        """Reads the artefact and the data set.

        Raises:
            RunError: The data set has another catalogue than the artefact.
            DataError: The data set cannot be read.
            ArtifactFileError: The artefact cannot be read.
        """
        engine = open_engine(self.folder)
        artifact, dataset = engine.artifact, Dataset.load(self.data)
        log = sequences(dataset)
        if list(log.item_ids) != list(artifact.catalogue.item_ids):
            raise RunError(
                "the data set has another catalogue than the artefact",
                where=f"{self.data} and {self.folder}",
                fix="evaluate on the data set that the model was trained on",
            )
        split = split_of(TrainConfig().updated(artifact.manifest["training"]), log)
        ranker = engine_ranker(engine, Decoding(self.strategy))
        systems = systems_of(ranker, artifact.item_cf, artifact.popularity, _name(artifact.baseline))
        more = signal_rankers(artifact, each=self.signals)
        systems |= {name: further for name, further in more.items() if name not in systems}
        return Opened(dataset, split, systems, not artifact.repeats)


@dataclass(frozen=True, eq=False)
class RunSource:
    """The network of a run in torch, beside scorers that were fitted already.

    Attributes:
        folder: The run folder.
        data: The data set that the run was trained on.
        item_cf: Tuned item-CF.
        popularity: Popularity.
    """

    folder: Path
    data: Path
    item_cf: ItemCF
    popularity: Popularity

    def open(self) -> Opened:
        """Reads the run and the data set.

        Raises:
            RunError: The run cannot be read, or the data set is not the one it was trained on.
            DataError: The data set cannot be read.
        """
        run = Run.open(self.folder)
        dataset = run.dataset(self.data)
        split = run.split(dataset)
        ranker = network_ranker(run.model(), run.vocabulary(split.train.item_ids))
        return Opened(dataset, split, systems_of(ranker, self.item_cf, self.popularity), not run.config.repeats)


def systems_of(ranker: Ranker, item_cf: ItemCF, popularity: Popularity, name: str = "gpt4rec") -> dict[str, Ranker]:
    """Returns a ranker beside item-CF and popularity; one that is itself one of these stands for it."""
    others = {"item_cf": item_cf_ranker(item_cf, popularity), "popular": popularity_ranker(popularity)}
    return {name: ranker} | {other: scorer for other, scorer in others.items() if other != name}


def _name(baseline: Mapping[str, object] | None) -> str:
    """What an artefact is called in the tables: the scorer that it serves, under the name that its row has there."""
    if baseline is None:
        return "gpt4rec"
    return {"popularity": "popular"}.get(str(baseline["name"]), str(baseline["name"]))


def lists_by(
    source: Source,
    opened: Opened,
    part: Part,
    processes: int,
    progress: Callable[[str, int, int], None] | None = None,
    batch: int = BATCH,
) -> dict[str, IntArray]:
    """Ranks the questions of a part with every system.

    Args:
        source: What is evaluated, as the processes open it.
        opened: The same, opened here.
        part: The hold-out part.
        processes: Number of processes.
        progress: Called with (system, users done, users in all) after each batch.
        batch: Users ranked at once.

    Returns:
        The lists [questions, DEPTH] of each system.
    """
    users = len(questions_of(opened.split, part))
    lists = {name: np.full((users, DEPTH), -1, np.int64) for name in opened.systems}
    done = dict.fromkeys(lists, 0)
    context, threads = multiprocessing.get_context("spawn"), max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(processes, context, _open, (source, part, threads)) as pool:
        asked = {pool.submit(_ranked, name, rows): (name, rows) for name in lists for rows in _batches(users, batch)}
        try:
            for future in as_completed(asked):
                name, rows = asked[future]
                lists[name][rows] = future.result()
                done[name] += rows.stop - rows.start
                if progress is not None:
                    progress(name, done[name], users)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return lists


def _batches(users: int, batch: int) -> Iterator[slice]:
    for start in range(0, users, batch):
        yield slice(start, min(start + batch, users))


# What a process of the pool has opened.
_here: list[tuple[Opened, Part]] = []


def _open(source: Source, part: Part, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    _here.append((source.open(), part))


def _ranked(name: str, rows: slice) -> IntArray:
    opened, part = _here[-1]
    return ranked_batch(name, opened.systems[name], opened.split, part, rows, exclude_history=opened.exclude_history)
