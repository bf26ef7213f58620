"""The lists of an artefact for questions, by the ids of the items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.loop.gate.questions import Question
from model.evaluation.rankers import EngineJobs, batches_of
from service.artifact.array_types import FloatArray
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.engine.baseline_engine import BaselineEngine
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.factory import open_engine
from service.engine.jobs import Job
from service.engine.run_groups import result_of

# Length of the lists. Their scores stand for those of all candidates: what comes after has hardly any probability.
DEPTH = 50


@dataclass(frozen=True)
class Listed:
    """The list of one question, best first: the ids of the items and their scores."""

    items: Sequence[str]
    scores: FloatArray


class Contender:
    """An artefact that is asked.

    Attributes:
        engine: The engine that serves it.
        artifact: What it serves.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the artefact.

        Raises:
            ArtifactError: It cannot be used.
        """
        self.engine: Engine | BaselineEngine = open_engine(folder)
        self.artifact: Artifact = self.engine.artifact
        self._jobs = EngineJobs(self.engine, Decoding("beam"))

    @property
    def item_ids(self) -> Sequence[str]:
        """Ids of the items, in index order."""
        return self.artifact.catalogue.item_ids

    def knows(self, item_id: str | None) -> bool:
        """Returns whether an item is in the catalogue."""
        return item_id is not None and item_id in self.artifact.vocabulary.item_index

    def job(self, question: Question, k: int = DEPTH) -> Job:
        """Returns the job of a question's list."""
        vocabulary = self.artifact.vocabulary
        index, unknown = vocabulary.item_index, vocabulary.unknown_item
        item = np.array([index.get(item_id, unknown) for item_id in question.items], np.int64)
        times = np.array(question.times_ms, np.int64) if vocabulary.has_time else np.zeros(len(item), np.int64)
        events = EventArrays(item, np.array(question.types, np.int64), times)
        excluded = np.zeros(0, np.int64) if self.artifact.repeats else np.unique(item[item < unknown])
        return self._jobs.of(events, excluded, min(k, len(self.item_ids)))

    def lists(self, questions: Sequence[Question], k: int = DEPTH) -> list[Listed]:
        """Returns the list of each question."""
        listed: list[Listed | None] = [None] * len(questions)
        ids = self.item_ids
        for rows in batches_of([len(question.items) for question in questions]):
            results = self.engine.run([self.job(questions[row], k) for row in rows])
            for row, result in zip(rows, results, strict=True):
                decoded = result_of(result).decoded
                listed[row] = Listed([ids[item] for item in decoded.items.tolist()], decoded.scores)
        return [one for one in listed if one is not None]
