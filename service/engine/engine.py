"""The model behind the service: jobs in, states and lists out.

Synchronous. `encode` and `decode` may be called from different threads at the same time; a row's result does not depend
on the rows it shares a run with.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from service.artifact.array_types import Array, FloatArray, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN, NO_EVENTS, EventArrays
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.decoder_interface import ON_REQUEST, ON_REQUEST_SAMPLED
from service.artifact.graphs.run_sizes import RunSizes
from service.artifact.items.filter_conditions import Filters
from service.artifact.manifest import ArtifactFileError
from service.common.errors import ArtifactError
from service.engine.decode.decoder import Decoder
from service.engine.decode.device_tables import DecoderTraits, Tables
from service.engine.decode.filters import MASK_BYTES_MAX
from service.engine.decode.run_feeds import CLOSED_BUCKETS
from service.engine.decoding import LEAST_BUCKETS, MAX_WIDTH, WIDTH_BUCKETS, Decoding, Strategy, signal_buckets
from service.engine.encode.encoder import CHUNK, Encoder
from service.engine.encode.explainer import Explainer
from service.engine.encode.history_encoder import HistoryEncoder
from service.engine.encoder_state import EncoderState
from service.engine.fallback import Source
from service.engine.held_filters import FilterMasks
from service.engine.interface import Explanation, RunObserver
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, Job, JobResult, ListRequest, decode_key
from service.engine.live_catalogue import LiveCatalogue
from service.engine.onnx_session import GraphSession, Values
from service.engine.placement import Device, Placement
from service.engine.run_groups import result_of
from service.engine.run_jobs import run_jobs
from service.signals.item_values import NO_VALUES, ItemValues

# The largest batch that is warmed up where batches are padded: a batch of requests may hold a hundred lists.
WARM_ROWS = 128
_STRATEGIES: tuple[Strategy, Strategy] = ("greedy", "temperature")  # one for each graph


class Engine:
    """An artefact on a device. Implements `service.engine.interface.EngineLike` and `Explaining`."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        device: Device = "auto",
        threads: int | None = None,
        pad: bool | None = None,
        cuda_graphs: bool = False,
        profile: str | None = None,
        filter_bytes_max: int = MASK_BYTES_MAX,
    ) -> None:
        """Loads the graphs and puts the catalogue on the device.

        Args:
            artifact: What to serve.
            device: Where to run.
            threads: Threads of one run, see `service.engine.placement.Placement`; likewise the rest.
            pad: Whether batches are padded to powers of two; by default on a GPU only.
            cuda_graphs: Whether every shape is captured and replayed as a CUDA graph.
            profile: Prefix of the files with the times of the graphs' nodes.
            filter_bytes_max: Memory of the masks of filters.

        Raises:
            ArtifactError: The artefact does not fit.
            StartupError: The device cannot be used.
        """
        self.artifact = artifact
        self.placement = Placement.choose(device, threads, pad=pad, capture=cuda_graphs, profile=profile)
        self._graphs = {
            name: GraphSession(artifact.folder / f"{name}.onnx", self.placement)
            for name in ("encoder", "decoder", "sampler")
        }
        traits = DecoderTraits.of(artifact.network["code_sizes"], self._graphs["decoder"].inputs)
        self._tables = Tables.of(artifact, self.placement, traits, filter_bytes_max)
        self._encoder = self._make_encoder()
        self._decoder = Decoder(self._tables, self.placement, self._run_decoder, artifact.run_sizes)
        self._explainer = Explainer(artifact, self.placement)
        self.state_layout = self._encoder.layout
        self._observer: RunObserver | None = None

    @classmethod
    def open(cls, path: Path | str, **placement: Any) -> Self:
        """Verifies and loads an artefact.

        Args:
            path: The artefact's folder.
            placement: As for the constructor.

        Raises:
            ArtifactError: The artefact is damaged or does not fit.
            StartupError: The device cannot be used.
        """
        try:
            return cls(Artifact.open(path), **placement)
        except ArtifactFileError as error:
            raise ArtifactError(str(error)) from error

    @property
    def source(self) -> Source:
        """What makes its lists."""
        return "gpt4rec"

    @property
    def model_version(self) -> str:
        """Identifies the weights."""
        return self.artifact.model_version

    @property
    def receptive_field(self) -> int:
        """The largest number of events that a hidden state depends on."""
        return self.artifact.receptive_field

    @property
    def filters(self) -> FilterMasks:
        """The filters it can decode with, over its present catalogue."""
        return self._tables.filters

    def filter_id(self, filters: Filters) -> int:
        """Returns the id of a filter, and builds its mask if it is new. Safe to call from several threads.

        Raises:
            ValueError: No item has such a field.
        """
        return self._tables.filters.id(filters)

    def set_weights(self, weights: Sequence[tuple[float, float]], bias: FloatArray) -> None:
        """Sets how lists are ranked, by group of users; before, it is as the artefact says.

        It holds for requests without weights of their own.

        Args:
            weights: Weights of the path's log-probability and of the dense score, for each group.
            bias: [groups, n_items] what signals of items add to the score of each exported item.
        """
        self._tables.set_ranking(self._tables.ranking.with_weights(weights, bias))

    def set_joined_candidates(self, join: bool) -> None:
        """Sets whether other candidates join the beam's: the best by what is known of their score without the path.

        They do by default. Without them a list is what the beam alone generates, and a sampled list is drawn from that;
        runs are as wide as planned, because what the export measured holds with them.
        """
        self._tables.set_joined_candidates(join)
        self.set_run_sizes(self.artifact.run_sizes if join else RunSizes())

    def set_run_sizes(self, sizes: RunSizes) -> None:
        """Sets which runs are narrower than planned; before, they are those that the artefact names."""
        self._decoder.measured = sizes

    def update(self, live: LiveCatalogue) -> None:
        """Serves another catalogue from the next run on; runs under way finish on the one they began with.

        Filter ids and item indices stay valid. Takes long if the trie has changed: do not call it on the event loop.
        """
        self._tables = self._decoder.tables = self._tables.renewed(live.artifact, live.delta, live.stand_in)
        self.artifact = live.artifact
        for graph in self._graphs.values():
            graph.forget_bindings()

    def observe(self, observer: RunObserver | None) -> None:
        """Reports every run to `observer` from now on; None ends the reports."""
        self._observer = observer

    def end_profiling(self) -> dict[str, Path]:
        """Ends a profile and returns the file of node times of every graph."""
        return {name: graph.end_profiling() for name, graph in self._graphs.items()}

    def close(self) -> None:
        """Frees the sessions and what they run on, even while the object itself is still referenced.

        The parts of an engine refer to each other, and frozen objects are skipped by the garbage collector, so nothing
        else would free them.
        """
        self._graphs.clear()
        for part in ("_tables", "_encoder", "_decoder", "_explainer"):
            self.__dict__.pop(part, None)

    def warm_up(self) -> None:
        """Runs every graph at every width, and at every size that batches are padded to. Raises if a run fails."""
        pad = self.placement.pad
        batches = [2**i for i in range(WARM_ROWS.bit_length())] if pad else [1]
        longest = CHUNK if self.artifact.streaming else self.receptive_field
        lengths = [2**i for i in range((longest - 1).bit_length() + 1)] if pad else [self.receptive_field]
        state = result_of(self.encode([EncodeJob(events=NO_EVENTS, from_start=True)])[0])
        for length, rows in itertools.product(lengths, batches):
            item = np.full(length, self.artifact.vocabulary.unknown_item, np.int64)
            events = EventArrays(item, np.zeros_like(item), np.zeros_like(item))
            _warm(self.encode, EncodeJob(events=events, from_start=False), rows)
        exclusions = (0, *CLOSED_BUCKETS[:-1]) if self.placement.capture else (0,)
        sizes = signal_buckets(dense=self._tables.traits.dense) if self.placement.capture else (0,)
        signals = [ItemValues(np.arange(size), np.ones(size, np.float32)) for size in sizes]
        planned = [key for width in WIDTH_BUCKETS for key in self._warm_plans(width)]
        for (width, strategy, k, pool), excluded, values, rows in itertools.product(
            planned, exclusions, signals, batches
        ):
            request = self._warm_request(Decoding(strategy), k, excluded, values, width)
            _warm(self.decode, DecodeJob(h=state.h, request=replace(request, pool=pool)), rows)
        for excluded, rows in itertools.product(exclusions, batches):
            request = self._warm_request(Decoding("greedy"), 1, excluded, NO_VALUES, WIDTH_BUCKETS[0])
            _warm(self.decode, DecodeJob(h=state.h, request=replace(request, ranked=np.arange(1))), rows)

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        """Encodes every job, in runs grouped by length.

        Returns:
            The state after each job's events, in order. A job that cannot be run gets its own error and harms no other.
        """
        return self._encoder.encode(jobs)

    def decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList | Exception]:
        """Decodes a list for every job, in runs grouped by width.

        Returns:
            A list for each job, in order. A job that cannot be run gets its own error and harms no other.
        """
        return self._decoder.decode(jobs)

    @property
    def explains(self) -> bool:
        """Whether the artefact has an explainer."""
        return self._explainer.available

    def explain(self, events: EventArrays, *, from_start: bool, context: IntArray | None = None) -> Explanation:
        """Explains the hidden state of a history. Not for the request path: it encodes the whole history.

        Args:
            events: The history, oldest first.
            from_start: Whether the start token goes before it.
            context: [slots] rows of the user's features, for encoders that read them; None: all unknown.

        Raises:
            ModelError: There is no explainer, or it does not run.
        """
        return self._explainer.explain(events, self._tables.values, from_start=from_start, context=context)

    def run(self, jobs: Sequence[Job]) -> list[JobResult | Exception]:
        """Encodes and decodes every job.

        Returns:
            A result for each job, in order. A job that cannot be run gets its own error and harms no other.
        """
        return run_jobs(self, jobs)

    def _make_encoder(self) -> Encoder | HistoryEncoder:
        if self.artifact.streaming:
            steps = names.N_NEW in self._graphs["encoder"].inputs
            return Encoder(self.artifact, self.placement, self._run_encoder, steps=steps)
        masked = names.ASKED in self._graphs["encoder"].inputs
        return HistoryEncoder(self.artifact, self.placement, self._run_encoder, masked=masked)

    def _warm_request(self, decoding: Decoding, k: int, excluded: int, signals: ItemValues, width: int) -> ListRequest:
        return ListRequest(
            context=np.zeros(self.artifact.network["n_slots"], np.int64),
            gap_ms=GAP_UNKNOWN,
            decoding=decoding,
            k=k,
            excluded=np.arange(excluded),
            signals=signals,
            width=width,
        )

    def _warm_plans(self, width: int) -> list[tuple[int, Strategy, int, int]]:
        """Width, strategy, k and pool of one list for each size of run that lists of this width have."""
        plans: dict[object, tuple[int, Strategy, int, int]] = {}
        # A long list may run in another shape than a short one, and one with more candidates in another again,
        # among them one that rules choose from.
        for strategy, k, pool in itertools.product(_STRATEGIES, (1, width), (0, *LEAST_BUCKETS)):
            if pool == 0 or pool <= width < 2 * pool or pool == MAX_WIDTH:
                key = decode_key(width, Decoding(strategy), k, pool)
                plans.setdefault((strategy, self._decoder.sizes(key)), (width, strategy, k, pool))
        return [*plans.values()]

    def _run_encoder(self, feeds: Mapping[str, Any], fixed: Values, shape: Hashable, rows: int) -> dict[str, Array]:
        return self._timed("encoder", feeds, (self._tables.values, fixed), shape, rows)

    def _run_decoder(
        self,
        sampled: bool,
        feeds: Mapping[str, Any],
        fixed: Sequence[Values],
        shape: Hashable,
        rows: int,
        everything: bool,
    ) -> dict[str, Array]:
        left_out = frozenset[str]() if everything else ON_REQUEST_SAMPLED if sampled else ON_REQUEST
        return self._timed("sampler" if sampled else "decoder", feeds, fixed, shape, rows, left_out)

    def _timed(
        self,
        graph: str,
        feeds: Mapping[str, Any],
        fixed: Sequence[Values],
        shape: Hashable,
        rows: int,
        left_out: frozenset[str] = frozenset(),
    ) -> dict[str, Array]:
        began = time.perf_counter()
        out = self._graphs[graph].run(feeds, fixed, shape, left_out)
        if self._observer is not None:
            self._observer.ran("encode" if graph == "encoder" else "decode", rows, time.perf_counter() - began)
        return out


J = TypeVar("J")
R = TypeVar("R")


def _warm(call: Callable[[Sequence[J]], Sequence[R | Exception]], job: J, rows: int) -> None:
    for result in call([job] * rows):
        result_of(result)
