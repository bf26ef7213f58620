"""Lists that were made before, by everything that they were made of. An LRU cache in this process, bounded by bytes.

A list is found by a key that names all that it was made of (`service.recommend.list_key`), so what is found is what
would be made. The key of a stored history has the version of its log, which each request compares with Redis before it
looks here. A list of a subject is dropped with the subject, and once the subject is known to have another log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from service.artifact.array_types import Array
from service.engine.draw import Draw
from service.engine.fallback import RecommendationList
from service.metrics.service_metrics import Metrics
from service.store.records import Subject

# Memory of a list beside its arrays, with its key and the entries of both tables: 1,650 bytes by tracemalloc.
_LIST_BYTES = 1_800
# Memory of what became of one rule, by tracemalloc.
_RULE_BYTES = 120


class Question(NamedTuple):
    """What a list is found by.

    Attributes:
        subject: Whose stored history it was made of; None where it was made of none.
        log: Version of that history, "" where there is none.
        key: Everything else that it was made of.
    """

    subject: Subject | None
    log: str
    key: Hashable


@dataclass(frozen=True, slots=True)
class KeptList:
    """A list that was made.

    Attributes:
        listing: The list.
        took_s: Seconds that it took to make.
    """

    listing: RecommendationList
    took_s: float

    @property
    def nbytes(self) -> int:
        """Estimated memory."""
        return _LIST_BYTES + _RULE_BYTES * len(self.listing.rules) + sum(a.nbytes for a in _arrays(self.listing))


class KeptLists:
    """Maps questions to lists. Not thread-safe: use it from the event loop only.

    Attributes:
        nbytes: Estimated memory of all of them.
    """

    def __init__(self, bytes_max: int, metrics: Metrics) -> None:
        """`bytes_max` is the most memory that they take together; with 0 none is kept."""
        self._bytes_max = bytes_max
        self._gauge = metrics.kept_list_bytes
        self._lists: OrderedDict[Question, tuple[KeptList, int]] = OrderedDict()
        self._logs: dict[Subject, tuple[str, set[Question]]] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._lists)

    def of(self, subject: Subject) -> int:
        """Returns how many lists of a subject are kept."""
        return len(self._logs[subject][1]) if subject in self._logs else 0

    @property
    def on(self) -> bool:
        """Whether any list is kept."""
        return self._bytes_max > 0

    def get(self, question: Question) -> KeptList | None:
        """Returns the list of a question if it was kept. Lists of earlier logs of its subject are dropped."""
        if question.subject is not None:
            self._only_log(question.subject, question.log)
        found = self._lists.get(question)
        if found is None:
            return None
        self._lists.move_to_end(question)
        return found[0]

    def put(self, question: Question, kept: KeptList) -> None:
        """Keeps a list. What was used least recently goes to make room for it."""
        kept = replace(kept, listing=_alone(kept.listing))
        size = kept.nbytes
        if size > self._bytes_max:
            return
        self._drop(question)
        if question.subject is not None:
            self._only_log(question.subject, question.log)
            self._logs.setdefault(question.subject, (question.log, set()))[1].add(question)
        self._lists[question] = (kept, size)
        self.nbytes += size
        while self.nbytes > self._bytes_max:
            self._drop(next(iter(self._lists)))
        self._gauge.set(self.nbytes)

    def forget(self, subject: Subject) -> None:
        """Drops the lists of a subject that is erased."""
        _, questions = self._logs.get(subject, ("", ()))
        for question in list(questions):
            self._drop(question)
        self._gauge.set(self.nbytes)

    def keep_only(self, logs: Mapping[Subject, str]) -> None:
        """Drops the lists of all subjects but those that are known to have the same log still.

        Args:
            logs: Version of the log of each of them.
        """
        for subject, (log, _) in list(self._logs.items()):
            if logs.get(subject) != log:
                self.forget(subject)

    def clear(self) -> None:
        """Drops everything, because another model or catalogue is served: nothing of it would be found again."""
        self._lists.clear()
        self._logs.clear()
        self.nbytes = 0
        self._gauge.set(0)

    def _only_log(self, subject: Subject, log: str) -> None:
        if subject in self._logs and self._logs[subject][0] != log:
            self.forget(subject)

    def _drop(self, question: Question) -> None:
        _, freed = self._lists.pop(question, (None, 0))
        self.nbytes -= freed
        if question.subject is not None and question.subject in self._logs:
            questions = self._logs[question.subject][1]
            questions.discard(question)
            if not questions:
                del self._logs[question.subject]


def _arrays(listing: RecommendationList) -> list[Array]:
    draw = listing.draw
    drawn = () if draw is None else (draw.log_propensities, draw.items, draw.scores, draw.log_probs)
    return [array for array in (listing.items, listing.scores, *drawn) if array is not None]


def _alone(listing: RecommendationList) -> RecommendationList:
    """The list with arrays of its own: those of a batch are parts of larger ones, which they would keep in memory."""
    draw = listing.draw
    if draw is not None:
        law, log_probs = draw.log_propensities, draw.log_probs
        draw = Draw(
            None if law is None else _own(law), _own(draw.items), _own(draw.scores),
            None if log_probs is None else _own(log_probs),
        )  # fmt: skip
    return replace(listing, items=_own(listing.items), scores=_own(listing.scores), candidates=None, draw=draw)


def _own(array: Array) -> Array:
    if array.base is None:
        return array
    copied: Array = np.array(array)
    return copied
