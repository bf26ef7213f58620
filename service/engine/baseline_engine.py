"""The engine of an artefact without a network: a scorer, served like any model.

The scorer is item-CF, popularity, repeat purchase, any other signal, or `fused`: all signals with learned weights.

The hidden state of a history is its newest items: their indices as float32 (exact up to 2²⁴ items), the newest last, −1
in front if there are fewer. So states are stored, replaced and rebuilt like those of a model that encodes whole
histories. A list of the first three is what the scorer makes of the items in the state. One of signals is made of their
sums, which come with the request (`ListRequest.signals`), so that what was seen before the state counts too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.artifact import Artifact
from service.artifact.graphs.state_layout import StateLayout
from service.artifact.items.filter_conditions import Filters
from service.artifact.scorers.repeat_purchase import REPEAT, Repeat
from service.artifact.scorers.signal_files import ITEM_CF, POPULARITY
from service.common.errors import ArtifactError, ModelError
from service.engine.decode.filters import MASK_BYTES_MAX, FilterTable
from service.engine.encoder_state import EncoderState
from service.engine.fallback import Constraints, Fallback, RecommendationList, Source, only
from service.engine.fused_scorer import FusedScorer
from service.engine.held_filters import FilterMasks
from service.engine.interface import RunObserver, Stage
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, Job, JobResult, ListRequest
from service.engine.live_catalogue import LiveCatalogue
from service.engine.run_groups import run_groups
from service.engine.run_jobs import run_jobs
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

NO_ITEM = -1.0
FUSED = "fused"
_SOURCES: Mapping[str, Source] = {ITEM_CF: "item_cf", POPULARITY: "popular", REPEAT: "repeat"}

# (items of the state, request, what the list may hold) → the list
Scorer = Callable[[IntArray, ListRequest, Constraints], RecommendationList]


class BaselineEngine:
    """Implements `service.engine.interface.EngineLike` and `Repeating` over a scorer.

    Decoding strategies and seeds make no difference: a scorer has one list. Lists are filled up with popular items, so
    they are complete whenever enough items are allowed.
    """

    def __init__(self, artifact: Artifact, filter_bytes_max: int = MASK_BYTES_MAX) -> None:
        """Chooses the scorer.

        Args:
            artifact: What to serve.
            filter_bytes_max: Memory of the masks of filters.

        Raises:
            ArtifactError: This version does not know the artefact's baseline.
        """
        self.artifact = artifact
        self._observer: RunObserver | None = None
        self.state_layout = StateLayout(artifact.receptive_field)
        ranker = Ranker.of(artifact.signals, artifact.ranker)
        self._fallback = Fallback.of(artifact.item_cf, artifact.popularity, ranker)
        self._signals = FusedScorer(ranker, artifact.popularity)
        self._filters = FilterTable(
            artifact.trie, artifact.catalogue, rows=len(artifact.catalogue), bytes_max=filter_bytes_max
        )
        baseline: Mapping[str, Any] = artifact.baseline or {}
        name = str(baseline.get("name"))
        scorers: dict[str, Scorer] = {ITEM_CF: self._neighbours, POPULARITY: self._popular, REPEAT: self._repeated}
        scorers |= {signal: self._fused for signal in (FUSED, *artifact.ranker.signals) if signal not in scorers}
        if name not in scorers:
            raise ArtifactError(f"the artefact holds the baseline {name!r}, which this version cannot serve")
        self._score = scorers[name]
        self._source = _SOURCES.get(name) or ("item_cf" if self._signals.ranker.uses_history() else "popular")
        self.repeat = Repeat(len(artifact.popularity.share), float(baseline.get("decay", 1.0)))

    @property
    def source(self) -> Source:
        """What makes its lists; popular items stand in for a history that the scorer has nothing for."""
        return self._source

    @property
    def model_version(self) -> str:
        """Identifies the scorer and its data."""
        return self.artifact.model_version

    @property
    def receptive_field(self) -> int:
        """The largest number of events that a list depends on."""
        return self.artifact.receptive_field

    @property
    def filters(self) -> FilterMasks:
        """The filters it can list with, over its present catalogue."""
        return self._filters

    def filter_id(self, filters: Filters) -> int:
        """Returns the id of a filter, and builds its mask if it is new. Safe to call from several threads.

        Raises:
            ValueError: No item has such a field.
        """
        return self._filters.id(filters)

    def update(self, live: LiveCatalogue) -> None:
        """Serves another catalogue from the next list on. New items are in no scorer, so they only fill lists up."""
        artifact = live.artifact
        self._fallback, self._signals = self._fallback.over(live.stand_in), self._signals.over(live.stand_in)
        self._filters = self._filters.renewed(artifact.trie, artifact.catalogue, rows=len(artifact.catalogue))
        self.artifact = artifact

    def observe(self, observer: RunObserver | None) -> None:
        """Reports every call of `encode` and `decode` to `observer` from now on; None ends the reports."""
        self._observer = observer

    def warm_up(self) -> None:
        """Does nothing: a scorer needs no warm-up."""

    def close(self) -> None:
        """Does nothing: the memory goes with the object."""

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        """Returns a state for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return self._timed(
            "encode", jobs, lambda: run_groups(jobs, lambda _: 0, lambda rows: list(map(self._state, rows)))
        )

    def decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList | Exception]:
        """Returns a list for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return self._timed(
            "decode", jobs, lambda: run_groups(jobs, lambda _: 0, lambda rows: list(map(self._list, rows)))
        )

    def run(self, jobs: Sequence[Job]) -> list[JobResult | Exception]:
        """Encodes and decodes every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_jobs(self, jobs)

    def _state(self, job: EncodeJob) -> EncoderState:
        if job.state is not None:
            if len(job.events) or not job.state.fits(self.state_layout):
                raise ModelError("a baseline reads whole histories: no event can be added to a state")
            return job.state
        h = np.full(self.receptive_field, NO_ITEM, np.float32)
        newest = job.events.item[-len(h) :]
        h[len(h) - len(newest) :] = newest
        return EncoderState.of_hidden(h)

    def _list(self, job: DecodeJob) -> DecodedList:
        history = job.h[job.h > NO_ITEM].astype(np.int64)
        request = job.request
        with self._filters.pinned([request.filter_id]) as masks:
            allowed = masks[0].item_ok if request.ranked is None else only(masks[0].item_ok, request.ranked)
            recommended = self._score(history, request, Constraints(allowed, request.excluded))
        scores = recommended.scores.astype(np.float32)
        return DecodedList(recommended.items, scores, scores, recommended.source, scorers=recommended.scorers)

    def _neighbours(self, history: IntArray, request: ListRequest, limits: Constraints) -> RecommendationList:
        return self._fallback.by_history(UserHistory.of_items(history), request.length, limits)

    def _popular(self, _: IntArray, request: ListRequest, limits: Constraints) -> RecommendationList:
        return self._fallback.popular(request.length, limits)

    def _repeated(self, history: IntArray, request: ListRequest, limits: Constraints) -> RecommendationList:
        items, scores = self.repeat.recommend(history, request.length, limits.allowed, limits.excluded)
        if not len(items):
            return self._fallback.popular(request.length, limits)
        return self._fallback.fill(RecommendationList(items, scores, "repeat", (REPEAT,)), request.length, limits)

    def _fused(self, _: IntArray, request: ListRequest, limits: Constraints) -> RecommendationList:
        return self._fallback.by_signals(self._signals, request.signals.unpacked(), request.length, limits)

    def _timed(self, stage: Stage, jobs: Sequence[Any], work: Callable[[], list[Any]]) -> list[Any]:
        began = time.perf_counter()
        results = work()
        if self._observer is not None:
            self._observer.ran(stage, len(jobs), time.perf_counter() - began)
        return results
