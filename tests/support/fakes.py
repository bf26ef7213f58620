"""A small model whose every part can be told to fail, and a store that is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.artifact.features import ContextVocabulary, EventArrays, Vocabulary
from service.artifact.graphs.encoder_version import EncoderVersion
from service.artifact.graphs.state_layout import attention_layout
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.order_weights import OrderWeights
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.signal_files import SignalPart
from service.artifact.trie import Trie
from service.engine.candidates import Candidates
from service.engine.decode.filters import FilterTable
from service.engine.encoder_state import EncoderState
from service.engine.fallback import Source
from service.engine.interface import RunObserver
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob
from service.store.store import Store
from service.store.store_settings import StoreSettings

N_ITEMS = 40
CATEGORIES = ("Comedy", "Drama", "Sci-Fi", "War")
ITEMS = [CatalogueItem(str(i), f"Title {i}", (CATEGORIES[i % len(CATEGORIES)],)) for i in range(N_ITEMS)]
HIDDEN = 4
WINDOW = 6
LAYOUT = attention_layout(1, WINDOW, 2, HIDDEN, "float16")


@dataclass(frozen=True)
class FakeArtifact:
    """Items "0" … "39"; item i is of category i mod 4."""

    catalogue: Catalogue = field(default_factory=lambda: Catalogue.of(ITEMS))
    repeats: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    order: OrderWeights | None = None
    together: NeighbourTable | None = None

    @property
    def encoder_version(self) -> EncoderVersion:
        return EncoderVersion.alone("fake-1", N_ITEMS)

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary({str(i): i for i in range(N_ITEMS)}, ContextVocabulary(), has_time=True)

    @property
    def item_cf(self) -> ItemCF:
        """The neighbours of item i are the two items after it."""
        i = np.arange(N_ITEMS)
        neighbour = np.stack([(i + 1) % N_ITEMS, (i + 2) % N_ITEMS], axis=1).astype(np.int32)
        return ItemCF(neighbour, np.tile(np.array([0.5, 0.25], np.float32), (N_ITEMS, 1)), decay=0.9)

    @property
    def popularity(self) -> Popularity:
        """Item 0 is the most popular, item 39 the least."""
        weight = np.arange(N_ITEMS, 0, -1, dtype=np.float64)
        return Popularity.of((weight / weight.sum()).astype(np.float32))

    @property
    def signals(self) -> Mapping[str, SignalPart]:
        return {"item_cf": self.item_cf, "repeat": OwnItems(N_ITEMS, 0.995), "popularity": self.popularity}

    @property
    def ranker(self) -> RankerWeights:
        return RankerWeights(tuple(self.signals), {"default": {"path": 0.5, "dense": 0.5, **self.weights}})


class FakeEngine:
    """Recommends the allowed items from the highest index down.

    `h[0]` counts the encoded events, `h[1]` sums their items and `h[2]` depends on their order, so a test can see what
    a state has seen; `h[3]` says whether it began with the start token. `go` holds the decoder, `encode_go` the
    encoder; `delay_s` slows the decoder down.
    """

    def __init__(self, out_of_stock: frozenset[int] = frozenset()) -> None:
        catalogue = Catalogue.of(ITEMS).updated((), sorted(out_of_stock))
        self.artifact = FakeArtifact(catalogue)
        self.filters = FilterTable(Trie.build(np.arange(N_ITEMS)[:, None]), catalogue)
        self.model_version = "fake-1"
        self.source: Source = "gpt4rec"
        self.receptive_field = 12
        self.state_layout = LAYOUT
        self.encoded: list[EncodeJob] = []
        self.jobs: list[DecodeJob] = []
        self.batches: list[int] = []
        self.error: BaseException | None = None
        self.delay_s = 0.0
        self.fail_jobs: bool = False
        self.fail_full_width = False
        self.fail_states = False
        self.go = threading.Event()
        self.go.set()
        self.encode_go = threading.Event()
        self.encode_go.set()
        self.entered = threading.Event()
        self.observer: RunObserver | None = None
        self.warm = False
        self.closed = False

    def observe(self, observer: RunObserver | None) -> None:
        self.observer = observer

    def warm_up(self) -> None:
        self.warm = True

    def update(self, live: object) -> None:
        raise NotImplementedError("this catalogue does not change")

    def close(self) -> None:
        self.closed = True

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        self.encoded.extend(jobs)
        self.encode_go.wait()
        return [self._encode(job) for job in jobs]

    def decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList | Exception]:
        self.jobs.extend(jobs)
        self.batches.append(len(jobs))
        self.entered.set()
        self.go.wait()
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        if self.observer is not None:
            self.observer.ran("decode", len(jobs), 0.001)
        return [self._list(job) for job in jobs]

    def _encode(self, job: EncodeJob) -> EncoderState | Exception:
        if self.fail_states and job.state is not None:
            return RuntimeError("this state is bad")
        return add(job.state, job.events, from_start=job.from_start)

    def _list(self, job: DecodeJob) -> DecodedList | Exception:
        request = job.request
        if self.fail_jobs or (self.fail_full_width and request.width is None):
            return RuntimeError("this job is bad")
        if not np.isfinite(job.h).all():
            return RuntimeError("this state is bad")
        mask = self.filters.mask(request.filter_id).allowed.copy()
        mask[request.excluded] = False
        if request.ranked is not None:
            mask &= np.isin(np.arange(N_ITEMS), request.ranked)
        items = np.flatnonzero(mask)[::-1][: request.length].astype(np.int64)
        scores = -np.arange(1, len(items) + 1, dtype=np.float32)
        every = np.flatnonzero(mask)[::-1].astype(np.int64)
        log_probs = -np.arange(1, len(every) + 1, dtype=np.float32)
        candidates = Candidates(every, log_probs, log_probs, every >= 0) if request.candidates else None
        return DecodedList(items, scores, log_probs=scores, candidates=candidates)


def add(state: EncoderState | None, events: EventArrays, *, from_start: bool = False) -> EncoderState:
    h = np.zeros(HIDDEN, np.float32) if state is None else state.h.copy()
    h[0] += len(events)
    h[1] += float(events.item.sum())
    for item in events.item.tolist():
        h[2] = (7 * h[2] + item + 1) % 8191
    h[3] = max(h[3], float(from_start))
    n = min(WINDOW, int(h[0]))
    arrays = {array.name: np.zeros(array.shape, array.dtype) for array in LAYOUT.arrays}
    return EncoderState(arrays, n, h)


def away_store() -> Store:
    """A store whose server is not there."""
    return Store(StoreSettings(url="unix:///nonexistent/valkey.sock"))
