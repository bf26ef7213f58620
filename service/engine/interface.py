"""The seam between the service and its engines: models, scorers and the fakes of the tests implement it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from service.artifact.array_types import BoolArray, FloatArray, IntArray
from service.artifact.features import EventArrays, Vocabulary
from service.artifact.graphs.encoder_version import EncoderVersion
from service.artifact.graphs.state_layout import StateLayout
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.items.filter_conditions import Filters
from service.artifact.items.item_filters import ItemFilter
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.order_weights import OrderWeights
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.repeat_purchase import Repeat
from service.artifact.scorers.signal_files import SignalPart
from service.engine.encoder_state import EncoderState
from service.engine.fallback import Source
from service.engine.held_filters import FilterMasks
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob
from service.engine.live_catalogue import LiveCatalogue

Stage = Literal["encode", "decode"]
ExplanationMethod = Literal["attention_rollout", "attention", "gradient"]


class ArtifactParts(Protocol):
    """What an artefact holds besides the graphs."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Its description."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """The indices of items, event types and context values."""
        ...

    @property
    def encoder_version(self) -> EncoderVersion:
        """What the states of histories depend on."""
        ...

    @property
    def catalogue(self) -> CatalogueView:
        """The items and their fields."""
        ...

    @property
    def item_cf(self) -> ItemCF:
        """The neighbours of every item."""
        ...

    @property
    def popularity(self) -> Popularity:
        """The items by popularity."""
        ...

    @property
    def repeats(self) -> bool:
        """Whether lists hold the history unless a request says otherwise."""
        ...

    @property
    def signals(self) -> Mapping[str, SignalPart]:
        """What each signal was fitted to, by name."""
        ...

    @property
    def ranker(self) -> RankerWeights:
        """The weights of the signals."""
        ...

    @property
    def together(self) -> NeighbourTable | None:
        """What is taken together in one basket; None where that is not known."""
        ...

    @property
    def order(self) -> OrderWeights | None:
        """What the order of a list is worth; None where lists are by score."""
        ...


class RunObserver(Protocol):
    """Gets a report of every graph run, on the thread that made the run."""

    def ran(self, stage: Stage, rows: int, seconds: float) -> None:
        """Called after a run of `rows` rows (padding not counted) that took `seconds`."""
        ...


class EngineLike(Protocol):
    """The model behind the service.

    `encode` and `decode` are called from different threads at the same time, and both while `update` runs.
    """

    @property
    def artifact(self) -> ArtifactParts:
        """What the engine serves, in its present state."""
        ...

    @property
    def model_version(self) -> str:
        """Identifies the weights."""
        ...

    @property
    def source(self) -> Source:
        """What makes its lists, unless a list says otherwise."""
        ...

    @property
    def receptive_field(self) -> int:
        """The largest number of events that a hidden state depends on."""
        ...

    @property
    def state_layout(self) -> StateLayout:
        """The arrays of the encoder's states."""
        ...

    def encode(self, jobs: Sequence[EncodeJob]) -> Sequence[EncoderState | Exception]:
        """Encodes every job.

        Returns:
            A state for each job, in order. A job that cannot be run gets its own error and harms no other.
        """
        ...

    def decode(self, jobs: Sequence[DecodeJob]) -> Sequence[DecodedList | Exception]:
        """Decodes a list for every job.

        Returns:
            A list for each job, in order. A job that cannot be run gets its own error and harms no other.
        """
        ...

    def warm_up(self) -> None:
        """Runs every graph once at every size that it is planned for. Raises whatever a run raises."""
        ...

    @property
    def filters(self) -> FilterMasks:
        """The filters it can decode with, over its present catalogue."""
        ...

    def update(self, live: LiveCatalogue) -> None:
        """Serves another catalogue from the next run on. May take long: do not call it on the event loop."""
        ...

    def observe(self, observer: RunObserver | None) -> None:
        """Reports every run to `observer` from now on; None ends the reports."""
        ...

    def close(self) -> None:
        """Frees what the engine holds. It cannot run any more."""
        ...


class CatalogueView(Protocol):
    """What is known of the items, by catalogue index."""

    @property
    def items(self) -> Sequence[CatalogueItem]:
        """The items."""
        ...

    @property
    def item_ids(self) -> Sequence[str]:
        """Their ids."""
        ...

    @property
    def n_categories(self) -> int:
        """Number of different categories."""
        ...

    @property
    def restricted(self) -> bool:
        """Whether the fields of an item may keep it out of lists now or later: a stock, or a window."""
        ...

    def title(self, item: int) -> str | None:
        """Returns an item's title, None if it has none."""
        ...

    def values(self, name: str, index: int) -> tuple[str, ...]:
        """Returns an item's values of a field that filters can name; of `path`, its category paths and those above."""
        ...

    def has_value(self, field: str, value: str) -> bool:
        """Returns whether an item, in stock or not, has this value of a field of texts that filters can name."""
        ...

    def unknown(self, filters: Filters) -> Iterator[str]:
        """Yields what a filter names that no item has, in stock or not.

        Raises:
            ValueError: No item has such a field.
        """
        ...

    def filter(self, filters: Filters) -> ItemFilter:
        """Returns a filter without the values that no item has. It is cheap.

        Raises:
            ValueError: No item has such a field.
        """
        ...

    def allowed(self, filters: Filters) -> BoolArray | None:
        """Returns which items are in stock and match the filters.

        Returns:
            [items] bool; None if every item is allowed.

        Raises:
            ValueError: No item has such a field.
        """
        ...


@dataclass(frozen=True, slots=True)
class MemoryRead:
    """What the last state read from the memory beside the encoder's window.

    Attributes:
        events: [m ≤ n] float32 share of each of the newest events in it. They add up to at most 1; the rest is what
            the memory held before them.
        slots: [slots] float32 share of each slot; None of encoders without slots.
        sessions: [m] int64 number of each event's session, from 0; None of encoders without sessions.
        horizons: Weight of each horizon by name; None of encoders without horizons.
    """

    events: FloatArray
    slots: FloatArray | None = None
    sessions: IntArray | None = None
    horizons: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """How much each event of a history had to do with the hidden state.

    Attributes:
        weight: [m ≤ n] float32 share of each of the newest events, those that the encoder reads; with `start` and
            `earlier`, the shares add up to 1.
        start: The share of the start token.
        h: [d] float32 the hidden state, as the encoder makes it.
        method: How the shares were found: attention rolled out over layers, attention of the last state, or the
            gradient of h by each event.
        earlier: The share that the events before those have together, of encoders that remember them.
        memory: What was read from memory, of encoders that have one to show.
    """

    weight: FloatArray
    start: float
    h: FloatArray
    method: ExplanationMethod = "attention_rollout"
    earlier: float = 0.0
    memory: MemoryRead | None = None


@runtime_checkable
class Repeating(Protocol):
    """An engine that may recommend a user's own items again (source `repeat`)."""

    @property
    def repeat(self) -> Repeat:
        """The scorer of these lists."""
        ...


@runtime_checkable
class Explaining(Protocol):
    """An engine that can explain its hidden states."""

    @property
    def explains(self) -> bool:
        """Whether the artefact has an explainer."""
        ...

    def explain(self, events: EventArrays, *, from_start: bool, context: IntArray | None = None) -> Explanation:
        """Explains the hidden state of a history.

        Args:
            events: The history, oldest first.
            from_start: Whether the start token goes before it.
            context: [slots] rows of the user's features, for encoders that read them; None: all unknown.

        Raises:
            ModelError: There is no explainer, or it does not run.
        """
        ...
