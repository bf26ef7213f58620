"""The model behind the service: jobs in, states and lists out.

Synchronous. `encode` and `decode` may be called from different threads at the same time; a row's answer does not depend
on the rows it shares a run with.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from service.artifact.artifact import Artifact, ArtifactFileError
from service.artifact.features import GAP_UNKNOWN, NO_EVENTS, EventArrays
from service.common.errors import ArtifactError
from service.engine.decode.decoder import CLOSED_BUCKETS, Decoder
from service.engine.decode.device_tables import Tables
from service.engine.decode.filters import Filters
from service.engine.decoding import WIDTH_BUCKETS, Decoding, Strategy
from service.engine.encode.encoder import CHUNK, Encoder
from service.engine.encode.explainer import Explainer
from service.engine.encode.history_encoder import HistoryEncoder
from service.engine.encoder_state import EncoderState
from service.engine.interface import Explanation, RunObserver
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, Job, JobResult, ListRequest
from service.engine.live_catalogue import LiveCatalogue
from service.engine.onnx_session import Device, GraphSession, Placement, Values
from service.engine.run_jobs import run_jobs

# The largest batch that is warmed up where batches are padded.
WARM_ROWS = 32
_STRATEGIES: tuple[Strategy, Strategy] = ("greedy", "temperature")  # one for each graph


class Engine:
    """An artefact on a device.

    Raises ArtifactError for an artefact that does not fit, StartupError where the device cannot be used.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        device: Device = "auto",
        threads: int | None = None,
        pad: bool | None = None,
        cuda_graphs: bool = False,
        profile: str | None = None,
    ) -> None:
        """`threads` per run, `pad`, `cuda_graphs` and `profile` as in `service.engine.onnx_session.Placement`."""
        self.artifact = artifact
        self.at = Placement.choose(device, threads, pad=pad, capture=cuda_graphs, profile=profile)
        self._graphs = {
            name: GraphSession(artifact.folder / f"{name}.onnx", self.at) for name in ("encoder", "decoder", "sampler")
        }
        half = self._graphs["decoder"].inputs["item_table"] == "tensor(float16)"
        inputs = self._graphs["decoder"].inputs
        by_rows = frozenset(level for level in range(artifact.levels) if f"row_ok_{level}" in inputs)
        dtype: np.dtype[np.floating[Any]] = np.dtype(np.float16 if half else np.float32)
        dense, drawn = "item_path" in inputs, "item_path" in self._graphs["sampler"].inputs
        self._tables = Tables(artifact, self.at, dtype, by_rows, dense=dense, drawn=drawn)
        run, asks = self._run_encoder, "asked" in self._graphs["encoder"].inputs
        self._encoder: Encoder | HistoryEncoder = (
            Encoder(artifact, self.at, run) if artifact.streaming else HistoryEncoder(artifact, self.at, run, asks=asks)
        )
        self._decoder = Decoder(self._tables, self.at, self._run_decoder)
        self._explainer = Explainer(artifact, self.at)
        self.state_shape = self._encoder.shape
        self._observer: RunObserver | None = None

    @classmethod
    def open(cls, path: Path | str, **placement: Any) -> Self:
        """Verify the artefact at `path` and load it; `placement` as for the constructor."""
        try:
            return cls(Artifact.open(path), **placement)
        except ArtifactFileError as error:
            raise ArtifactError(str(error)) from error

    @property
    def model_version(self) -> str:
        return self.artifact.model_version

    @property
    def receptive_field(self) -> int:
        return self.artifact.receptive_field

    def filter_id(self, filters: Filters) -> int:
        """The number of a filter. Thread-safe. Raises ValueError for a field items do not have."""
        return self._tables.filters.id(filters)

    def set_blend(self, blend: float) -> None:
        """Weight of the dense score in the final ranking, 0 … 1; the artefact's own until it is set."""
        self._tables.set_blend(blend)

    def set_dense_candidates(self, join: bool) -> None:
        """Whether the best items by the dense score join the beam's, where the artefact's decoder has them: they do
        until it is set. Without them a list is what the beam alone generates, and a sampled one is drawn from that."""
        self._tables.set_dense_candidates(join)

    def update(self, live: LiveCatalogue) -> None:
        """Run on another catalogue from the next run on; runs under way end on the one they began with. Numbers of
        filters and indices of items stay valid. Takes long where the trie has changed: not for the event loop."""
        self._tables = self._decoder.tables = self._tables.renewed(live.artifact, live.delta)
        self.artifact = live.artifact
        for graph in self._graphs.values():
            graph.forget_bindings()

    def observe(self, observer: RunObserver | None) -> None:
        """Reports every run to `observer` from now on; None ends the reports."""
        self._observer = observer

    def end_profiling(self) -> dict[str, Path]:
        """The file of node times of every graph, where a profile was asked for."""
        return {name: graph.end_profiling() for name, graph in self._graphs.items()}

    def close(self) -> None:
        """Frees the sessions and what they run on, also where the object itself is kept a while; it cannot run any
        more. Parts of an engine know each other, and what was frozen is not looked through for that."""
        self._graphs.clear()
        for part in ("_tables", "_encoder", "_decoder", "_explainer"):
            self.__dict__.pop(part, None)

    def warm_up(self) -> None:
        """A run of every graph at every width, and of every size that batches are padded to; raises where one fails."""
        sizes = [2**i for i in range(WARM_ROWS.bit_length())] if self.at.pad else [1]
        longest = CHUNK if self.artifact.streaming else self.receptive_field
        padded = [2**i for i in range((longest - 1).bit_length() + 1)]
        lengths = padded if self.at.pad else [self.receptive_field]
        state = _result(self.encode([EncodeJob(events=NO_EVENTS, from_start=True)])[0])
        for length, rows in itertools.product(lengths, sizes):
            item = np.full(length, self.artifact.vocabulary.unknown_item, np.int64)
            events = EventArrays(item, np.zeros_like(item), np.zeros_like(item))
            _warm(self.encode, EncodeJob(events=events, from_start=False), rows)
        context = np.zeros(self.artifact.network["n_slots"], np.int64)
        exclusions = (0, *CLOSED_BUCKETS[:-1]) if self.at.capture else (0,)
        for width, strategy, n, rows in itertools.product(WIDTH_BUCKETS, _STRATEGIES, exclusions, sizes):
            # A long list may run in another shape than a short one.
            requests = [
                ListRequest(
                    context=context,
                    gap_ms=GAP_UNKNOWN,
                    decoding=Decoding(strategy),
                    k=k,
                    excluded=np.arange(n),
                    width=width,
                )
                for k in (1, width)
            ]
            jobs = [DecodeJob(h=state.h, request=request) for request in requests]
            for job in {job.run_key: job for job in jobs}.values():
                _warm(self.decode, job, rows)

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        """The state after every job's events, in order, in runs grouped by length. A job that cannot be run gets its
        own error and harms no other."""
        return self._encoder.encode(jobs)

    def decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList | Exception]:
        """A list for every job, in order, in runs grouped by width. A job that cannot be run gets its own error and
        harms no other."""
        return self._decoder.decode(jobs)

    @property
    def explains(self) -> bool:
        """Whether the artefact says which events carried the attention."""
        return self._explainer.there

    def explain(self, events: EventArrays, *, from_start: bool) -> Explanation:
        """What each event of a history carried to its hidden state. Not for the request path: it encodes all of it."""
        return self._explainer.explain(events, self._tables.values, from_start=from_start)

    def run(self, jobs: Sequence[Job]) -> list[JobResult | Exception]:
        """Encodes and decodes every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_jobs(self, jobs)

    def _run_encoder(
        self, feeds: Mapping[str, Any], fixed: Values, shape: Hashable, rows: int
    ) -> dict[str, npt.NDArray[Any]]:
        return self._timed("encoder", feeds, (self._tables.values, fixed), shape, rows)

    def _run_decoder(
        self, sampled: bool, feeds: Mapping[str, Any], fixed: Sequence[Values], shape: Hashable, rows: int
    ) -> dict[str, npt.NDArray[Any]]:
        return self._timed("sampler" if sampled else "decoder", feeds, fixed, shape, rows)

    def _timed(
        self, graph: str, feeds: Mapping[str, Any], fixed: Sequence[Values], shape: Hashable, rows: int
    ) -> dict[str, npt.NDArray[Any]]:
        started = time.perf_counter()
        out = self._graphs[graph].run(feeds, fixed, shape)
        if self._observer is not None:
            self._observer.ran("encode" if graph == "encoder" else "decode", rows, time.perf_counter() - started)
        return out


J = TypeVar("J")
R = TypeVar("R")


def _warm(call: Callable[[Sequence[J]], Sequence[R | Exception]], job: J, rows: int) -> None:
    for result in call([job] * rows):
        _result(result)


def _result(result: R | Exception) -> R:
    if isinstance(result, Exception):
        raise result
    return result
