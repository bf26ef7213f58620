"""An artefact without a network: item-CF, popularity or repeat purchase, served by name as any model is.

The hidden state of a history is its newest items: their indices as float32, which is exact up to 2²⁴ items, the newest
last, −1 where there are fewer. So states are stored, replaced and rebuilt as those of a model that encodes histories
whole, and a list is what the scorer says of the items in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.artifact import Artifact
from service.artifact.repeat_purchase import Repeat
from service.common.errors import ArtifactError, ModelError
from service.engine.decode.filters import Filters, FilterTable
from service.engine.encoder_state import EncoderState, StateShape
from service.engine.fallback import Constraints, Fallback, RecommendationList
from service.engine.interface import RunObserver, Stage
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, Job, JobResult
from service.engine.live_catalogue import LiveCatalogue
from service.engine.run_groups import run_groups
from service.engine.run_jobs import run_jobs

NO_ITEM = -1.0


class BaselineEngine:
    """The same seam as `service.engine.engine.Engine`. Decoding strategies and seeds make no difference: a scorer has one
    list. Lists are filled with popular items, so that they are complete whenever enough items are allowed."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactError for a baseline that this version does not know."""
        self.artifact = artifact
        self._observer: RunObserver | None = None
        self.state_shape = StateShape(0, 0, 0, artifact.receptive_field, "float16")
        self._fallback = Fallback(artifact.item_cf, artifact.popularity)
        self._filters = FilterTable(artifact.trie, artifact.catalogue, rows=len(artifact.catalogue))
        about: Mapping[str, Any] = artifact.baseline or {}
        scorers: dict[str, Callable[[IntArray, int, Constraints], RecommendationList]] = {
            "item_cf": self._neighbours,
            "popularity": self._popular,
            "repeat": self._repeated,
        }
        if about.get("name") not in scorers:
            raise ArtifactError(
                f"the artefact holds the baseline {about.get('name')!r}, which this version cannot serve"
            )
        self._score = scorers[about["name"]]
        self._repeat = Repeat(len(artifact.popularity.share), float(about.get("decay", 1.0)))

    @property
    def model_version(self) -> str:
        return self.artifact.model_version

    @property
    def receptive_field(self) -> int:
        return self.artifact.receptive_field

    def filter_id(self, filters: Filters) -> int:
        """The number of a filter. Thread-safe. Raises ValueError for a field items do not have."""
        return self._filters.id(filters)

    def update(self, live: LiveCatalogue) -> None:
        """Another catalogue from the next list on. Items that came after the export are in no list of a scorer."""
        a = live.artifact
        self._fallback = Fallback(a.item_cf, a.popularity, live.stand_in)
        self._filters = self._filters.renewed(a.trie, a.catalogue, rows=len(a.catalogue))
        self.artifact = a

    def observe(self, observer: RunObserver | None) -> None:
        """Reports every call of `encode` and `decode` to `observer` from now on; None ends the reports."""
        self._observer = observer

    def warm_up(self) -> None:
        """There is nothing to warm."""

    def close(self) -> None:
        """There is nothing to free before the object itself goes."""

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        """A state for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return self._timed(
            "encode", jobs, lambda: run_groups(jobs, lambda _: 0, lambda rows: list(map(self._state, rows)))
        )

    def decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList | Exception]:
        """A list for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return self._timed(
            "decode", jobs, lambda: run_groups(jobs, lambda _: 0, lambda rows: list(map(self._list, rows)))
        )

    def run(self, jobs: Sequence[Job]) -> list[JobResult | Exception]:
        """Encodes and decodes every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_jobs(self, jobs)

    def _state(self, job: EncodeJob) -> EncoderState:
        if job.state is not None:
            if len(job.events) or job.state.shape != self.state_shape:
                raise ModelError("a baseline reads histories whole: an event cannot be added to a state")
            return job.state
        h = np.full(self.receptive_field, NO_ITEM, np.float32)
        newest = job.events.item[-len(h) :]
        h[len(h) - len(newest) :] = newest
        return EncoderState.of_hidden(h)

    def _list(self, job: DecodeJob) -> DecodedList:
        history = job.h[job.h > NO_ITEM].astype(np.int64)
        request = job.request
        allowed = self._filters.mask(request.filter_id).item_ok
        listing = self._score(history, request.k, Constraints(allowed, request.excluded))
        scores = listing.scores.astype(np.float32)
        return DecodedList(listing.items, scores, scores)

    def _neighbours(self, history: IntArray, k: int, limits: Constraints) -> RecommendationList:
        return self._fallback.by_history(history, k, limits)

    def _popular(self, _: IntArray, k: int, limits: Constraints) -> RecommendationList:
        return self._fallback.popular(k, limits)

    def _repeated(self, history: IntArray, k: int, limits: Constraints) -> RecommendationList:
        items, scores = self._repeat.recommend(history, k, limits.allowed, limits.excluded)
        return self._fallback.fill(RecommendationList(items, scores, "gpt4rec"), k, limits)

    def _timed(self, stage: Stage, jobs: Sequence[Any], work: Callable[[], list[Any]]) -> list[Any]:
        began = time.perf_counter()
        results = work()
        if self._observer is not None:
            self._observer.ran(stage, len(jobs), time.perf_counter() - began)
        return results
