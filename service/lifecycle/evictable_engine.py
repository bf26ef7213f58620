"""An engine that can be closed while its model stays in service, and opened again.

What is closed are the sessions and the tables on the device. The catalogue and the signals stay, because the rungs
below the model answer from them, and large arrays among them are mapped anyway. A catalogue that changes meanwhile is
taken over when the engine is opened again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays
from service.artifact.graphs.state_layout import StateLayout
from service.artifact.items.filter_conditions import Filters
from service.common.deadline import Clock
from service.common.errors import FilterNotReady, ModelError, ModelEvicted
from service.engine.encoder_state import EncoderState
from service.engine.fallback import Source
from service.engine.held_filters import FilterMasks, FilterUsage, HeldFilter
from service.engine.interface import ArtifactParts, EngineLike, Explaining, Explanation, RunObserver
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob
from service.engine.live_catalogue import LiveCatalogue
from service.process.memory import resident_bytes

# How long to wait for the runs under way before an engine is closed.
_RUNS_S = 5.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine takes, by what is known of it from outside.

    Attributes:
        files: Bytes of the artefact.
        before: Resident bytes of the process before the engine was opened.
    """

    files: int
    before: int

    def nbytes(self) -> int:
        """Returns by how much the process has grown since, or the size of the files if that is more."""
        return max(self.files, resident_bytes() - self.before)


class EvictableEngine:
    """Implements `EngineLike` and `Explaining` over an engine that is there or not.

    Attributes:
        footprint: What the engine takes.
        evicted: Whether the engine is closed at present.
        used: Clock time at which it was asked for or ran last; of its opening if it never was.
        asked: How often it was asked for, open or closed.
        on_wanted: Called when the closed engine is wanted, from any thread.
    """

    def __init__(
        self,
        engine: EngineLike,
        reopened: Callable[[], EngineLike],
        footprint: Footprint,
        clock: Clock = time.monotonic,
    ) -> None:
        """Begins with the engine open.

        Args:
            engine: The engine.
            reopened: Returns the same engine once more, over the catalogue as exported, ready to run.
            footprint: What it takes.
            clock: Monotonic seconds.
        """
        self.footprint = footprint
        self._engine: EngineLike | None = engine
        self._make, self._clock = reopened, clock
        self._artifact = engine.artifact
        self._model_version, self._source = engine.model_version, engine.source
        self._receptive_field, self._state_layout = engine.receptive_field, engine.state_layout
        self._explains = isinstance(engine, Explaining) and engine.explains
        self._live: LiveCatalogue | None = None
        self._observer: RunObserver | None = None
        # One change at a time: another catalogue, closing, opening. It may be held for seconds.
        self._changing = threading.Lock()
        self._runs = threading.Condition()
        self._running = 0
        self.used, self.asked = clock(), 0
        self.on_wanted: Callable[[], None] = lambda: None

    @property
    def evicted(self) -> bool:
        """Whether the engine is closed at present."""
        return self._engine is None

    def refusal(self, *, want: bool = False) -> ModelEvicted | None:
        """Returns why no job can be run now; None if jobs can.

        Args:
            want: Whether to ask for the engine, too.
        """
        if want:
            self.want()
        return ModelEvicted() if self._engine is None else None

    def want(self) -> None:
        """Asks for the engine: if it is closed, it is opened again as soon as there is room."""
        self.asked += 1
        self.used = self._clock()
        if self._engine is None:
            self.on_wanted()

    def evict(self) -> bool:
        """Closes the engine once no run is under way. Returns whether it did. Not for the event loop."""
        with self._changing, self._runs:
            engine, self._engine = self._engine, None
            if engine is None:
                return False
            if not self._runs.wait_for(lambda: not self._running, _RUNS_S):
                self._engine = engine
                return False
            engine.close()
            return True

    def reopen(self) -> None:
        """Opens the engine again, over the present catalogue. Raises what opening it raises. Not for the event loop."""
        with self._changing:
            if self._engine is not None:
                return
            engine = self._make()
            try:
                if self._live is not None:
                    engine.update(self._live)
                engine.observe(self._observer)
            except BaseException:
                engine.close()
                raise
            self.used = self._clock()
            self._engine = engine

    # -- EngineLike

    @property
    def artifact(self) -> ArtifactParts:
        """What is served, in its present state."""
        return self._artifact

    @property
    def model_version(self) -> str:
        """Identifies the weights."""
        return self._model_version

    @property
    def source(self) -> Source:
        """What makes its lists."""
        return self._source

    @property
    def receptive_field(self) -> int:
        """The largest number of events that a hidden state depends on."""
        return self._receptive_field

    @property
    def state_layout(self) -> StateLayout:
        """The arrays of the encoder's states."""
        return self._state_layout

    def encode(self, jobs: Sequence[EncodeJob]) -> Sequence[EncoderState | Exception]:
        """Encodes every job; ModelEvicted for each if the engine is closed."""
        engine = self._begin()
        if engine is None:
            return [ModelEvicted() for _ in jobs]
        try:
            return engine.encode(jobs)
        finally:
            self._end()

    def decode(self, jobs: Sequence[DecodeJob]) -> Sequence[DecodedList | Exception]:
        """Decodes a list for every job; ModelEvicted for each if the engine is closed."""
        engine = self._begin()
        if engine is None:
            return [ModelEvicted() for _ in jobs]
        try:
            return engine.decode(jobs)
        finally:
            self._end()

    def warm_up(self) -> None:
        """Runs every graph once at every size. An engine that was opened again is warm."""
        engine = self._engine
        if engine is not None:
            engine.warm_up()

    @property
    def filters(self) -> FilterMasks:
        """The filters it can decode with; none while it is closed."""
        engine = self._engine
        return _NO_FILTERS if engine is None else engine.filters

    def update(self, live: LiveCatalogue) -> None:
        """Serves another catalogue from the next run on. Waits while the engine is opened."""
        with self._changing:
            if self._engine is not None:
                self._engine.update(live)
            self._live, self._artifact = live, live.artifact

    def observe(self, observer: RunObserver | None) -> None:
        """Reports every run to `observer` from now on; None ends the reports."""
        with self._changing:
            self._observer = observer
            if self._engine is not None:
                self._engine.observe(observer)

    def close(self) -> None:
        """Frees what the engine holds. It cannot run any more."""
        with self._changing:
            engine, self._engine = self._engine, None
            if engine is not None:
                engine.close()

    # -- Explaining

    @property
    def explains(self) -> bool:
        """Whether the artefact has an explainer, and the engine is open."""
        return self._explains and self._engine is not None

    def explain(self, events: EventArrays, *, from_start: bool, context: IntArray | None = None) -> Explanation:
        """Explains the hidden state of a history; see `Explaining.explain`.

        Raises:
            ModelError: The engine is closed, or there is no explainer, or it does not run.
        """
        engine = self._begin()
        try:
            if not isinstance(engine, Explaining):
                raise ModelError("the model is not in memory")
            return engine.explain(events, from_start=from_start, context=context)
        finally:
            if engine is not None:
                self._end()

    def _begin(self) -> EngineLike | None:
        """Returns the engine for a run, which `_end` must end; None if it is closed."""
        with self._runs:
            engine = self._engine
            if engine is not None:
                self._running += 1
                self.used = self._clock()
                return engine
        self.on_wanted()
        return None

    def _end(self) -> None:
        with self._runs:
            self._running -= 1
            self._runs.notify_all()


class _NoFilters:
    """The filters of an engine that is closed."""

    def held(self, values: Filters) -> HeldFilter | None:  # noqa: ARG002 - the names of the seam
        return None

    def build(self, values: Filters, owner: str = "") -> HeldFilter:  # noqa: ARG002 - the names of the seam
        raise FilterNotReady("the model is not in memory")

    @property
    def usage(self) -> FilterUsage:
        return FilterUsage(0, 0, 0)


_NO_FILTERS = _NoFilters()
