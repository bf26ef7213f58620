"""What the service asks of an engine and an artefact: the seam behind which models, scorers and fakes stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from service.artifact.array_types import BoolArray, FloatArray
from service.artifact.catalogue import CatalogueItem
from service.artifact.features import EventArrays, Vocabulary
from service.artifact.item_cf import ItemCF
from service.artifact.item_filters import Filters
from service.artifact.popularity import Popularity
from service.engine.encoder_state import EncoderState, StateShape
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob
from service.engine.live_catalogue import LiveCatalogue

Stage = Literal["encode", "decode"]


class ArtifactParts(Protocol):
    """What an artefact holds besides the graphs."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def catalogue(self) -> CatalogueView: ...
    @property
    def item_cf(self) -> ItemCF: ...
    @property
    def popularity(self) -> Popularity: ...


class RunObserver(Protocol):
    """Gets a report of every graph run, on the thread that made the run."""

    def ran(self, stage: Stage, rows: int, seconds: float) -> None:
        """Called after a run of `rows` rows (padding not counted) that took `seconds`."""
        ...


class EngineLike(Protocol):
    """The seam between the service and its engines.

    `service.engine.engine.Engine`, `service.engine.baseline_engine.BaselineEngine` and the fake of the tests implement
    it. `encode` and `decode` are called from different threads at the same time.
    """

    @property
    def artifact(self) -> ArtifactParts: ...
    @property
    def model_version(self) -> str: ...
    @property
    def receptive_field(self) -> int: ...
    @property
    def state_shape(self) -> StateShape: ...
    def encode(self, jobs: Sequence[EncodeJob]) -> Sequence[EncoderState | Exception]: ...
    def decode(self, jobs: Sequence[DecodeJob]) -> Sequence[DecodedList | Exception]: ...
    def warm_up(self) -> None: ...
    def filter_id(self, filters: Filters) -> int: ...
    def update(self, live: LiveCatalogue) -> None: ...
    def observe(self, observer: RunObserver | None) -> None: ...
    def close(self) -> None: ...


class CatalogueView(Protocol):
    """What is known of the items, by catalogue index."""

    @property
    def items(self) -> Sequence[CatalogueItem]: ...
    @property
    def item_ids(self) -> Sequence[str]: ...
    @property
    def n_categories(self) -> int: ...
    def title(self, item: int) -> str | None: ...
    def allowed(self, filters: Filters) -> BoolArray | None:
        """[items] bool, None where every item is allowed. Raises ValueError for a field no item has."""
        ...


@dataclass(frozen=True, slots=True)
class Explanation:
    """`weight` [n] float32 share of every event in the hidden state; with `start`, the start token's share, they add
    up to 1. `h` [d] is that state, as the encoder makes it."""

    weight: FloatArray
    start: float
    h: FloatArray


@runtime_checkable
class Explaining(Protocol):
    """An engine that can say why. `explains` is false where the artefact has no explainer."""

    @property
    def explains(self) -> bool: ...
    def explain(self, events: EventArrays, *, from_start: bool) -> Explanation: ...
