"""Events → arrays, for the trainer and the service alike.

Both sides call the functions of this module and nothing else, so that the encoder sees the same input in
training and in serving. Only numpy is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.artifact.array_types import IntArray

# Types that belong to a history. The order is part of the format of a trained model: append only.
EVENT_TYPES: tuple[str, ...] = ("other", "view", "click", "cart", "purchase", "rating", "search")
# Type of the start token where all of them are known: one past the real types, without embedding, gap or period.
START_TYPE = len(EVENT_TYPES)
_TYPE_INDEX = {name: index for index, name in enumerate(EVENT_TYPES)}

# Types that are logged but are not part of a history when they name no item, or at all.
SIGNAL_TYPES: frozenset[str] = frozenset({"impression"})

GAP_UNKNOWN = -1


def type_index(event_type: str) -> int:
    """Index of an event type; a type the model does not know is "other"."""
    return _TYPE_INDEX.get(event_type, 0)


def is_history_event(event_type: str, item_id: str | None) -> bool:
    """Whether an event is part of the sequence (a search without an item and an impression are not)."""
    return item_id is not None and event_type not in SIGNAL_TYPES


@dataclass(frozen=True, slots=True)
class EventArrays:
    """A run of events, oldest first: `item`, `type` [n] int64 indices and `time_ms` [n] int64 (0: no time)."""

    item: IntArray
    type: IntArray
    time_ms: IntArray

    def __len__(self) -> int:
        return len(self.item)

    def after(self, start: int) -> EventArrays:
        """The events from position `start` on."""
        return EventArrays(self.item[start:], self.type[start:], self.time_ms[start:])


_NOTHING: IntArray = np.zeros(0, np.int64)
NO_EVENTS = EventArrays(_NOTHING, _NOTHING, _NOTHING)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a model knows: its items, its context fields, whether it uses times, and how many event types.

    Row `n` of the item table stands for every unknown item, row `n + 1` for the start of a history, n the number of
    items the model was trained with: `trained_items`, all of `item_index` where it is not given. An item whose index is
    not below `rows` has no row yet: to the encoder it is unknown. A type that came after the model was
    trained is "other".
    """

    item_index: Mapping[str, int]
    context: ContextVocabulary
    has_time: bool
    trained_items: int | None = None
    rows: int | None = None
    n_types: int = len(EVENT_TYPES)

    @classmethod
    def of(
        cls, item_ids: Sequence[str], context: ContextVocabulary, has_time: bool, n_types: int = len(EVENT_TYPES)
    ) -> Vocabulary:
        """The vocabulary of a catalogue given in index order."""
        return cls({item_id: row for row, item_id in enumerate(item_ids)}, context, has_time, n_types=n_types)

    @property
    def unknown_item(self) -> int:
        return len(self.item_index) if self.trained_items is None else self.trained_items

    @property
    def start_item(self) -> int:
        return self.unknown_item + 1

    def events(self, item_ids: Sequence[str], types: Sequence[str], times_ms: Sequence[int]) -> EventArrays:
        """Encoder input for events given oldest first. Unknown items keep their place in the sequence."""
        unknown, index = self.unknown_item, self.item_index
        item = np.fromiter((index.get(i, unknown) for i in item_ids), np.int64, len(item_ids))
        if self.rows is not None:
            item[item >= self.rows] = unknown
        kind = self.known_types(np.fromiter((type_index(t) for t in types), np.int64, len(types)))
        time = np.asarray(times_ms, np.int64) if self.has_time else np.zeros(len(item_ids), np.int64)
        return EventArrays(item, kind, time)

    def known_types(self, types: IntArray) -> IntArray:
        """[n] the types, "other" in the place of those the model was not trained with."""
        return types if self.n_types >= START_TYPE else np.where(types < self.n_types, types, 0)

    def with_start(self, events: EventArrays) -> EventArrays:
        """The learned start token before the first event. It borrows that event's time, so the gap is 0; in an
        empty history its time is not read at all."""
        first_ms = events.time_ms[:1] if len(events) else np.zeros(1, np.int64)
        return EventArrays(
            np.concatenate([[self.start_item], events.item]),
            np.concatenate([[self.n_types], events.type]),
            np.concatenate([first_ms, events.time_ms]),
        )


@dataclass(frozen=True, slots=True)
class ContextVocabulary:
    """Slots of the decoder's context: user features, the price band where items have prices, the scene, one category.

    A slot's value is a row of one shared embedding table; row 0 means "unknown" in every slot, and a value
    never seen in training is unknown too. `max_gap_ms` is the largest gap the model was trained on: a longer one is
    unknown as well, because the network cannot be trusted to extrapolate.
    """

    fields: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    max_gap_ms: int = 0

    SCENE = "scene"
    CONTROL = "category"
    PRICE = "price_band"

    @property
    def slots(self) -> tuple[str, ...]:
        priced = (self.PRICE,) if self.PRICE in self.values else ()
        return (*self.fields, *priced, self.SCENE, self.CONTROL)

    @property
    def n_rows(self) -> int:
        return 1 + sum(len(rows) for rows in self.values.values())

    def encode(self, given: Mapping[str, Any]) -> IntArray:
        """[slots] int64 rows of the context table for `{slot: value}`; what is absent is unknown (0)."""
        if not given:
            return np.zeros(len(self.slots), np.int64)
        rows = (self.values.get(slot, {}).get(str(given.get(slot)), 0) for slot in self.slots)
        return np.fromiter(rows, np.int64, len(self.slots))

    def gap(self, last_event_ms: int | None, now_ms: int | None) -> int:
        """Milliseconds since the last event, or `GAP_UNKNOWN` where that is not known or was never trained."""
        if last_event_ms is None or now_ms is None or self.max_gap_ms <= 0:
            return GAP_UNKNOWN
        gap = max(0, now_ms - last_event_ms)
        return gap if gap <= self.max_gap_ms else GAP_UNKNOWN

    def to_json(self) -> dict[str, Any]:
        return {"fields": list(self.fields), "values": self.values, "max_gap_ms": self.max_gap_ms}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ContextVocabulary:
        values = {name: {str(k): int(v) for k, v in rows.items()} for name, rows in data["values"].items()}
        return cls(tuple(data["fields"]), values, int(data["max_gap_ms"]))

    @classmethod
    def fit(
        cls,
        fields: Mapping[str, Sequence[str | None]],
        scenes: Sequence[str],
        controls: Sequence[str],
        max_gap_ms: int,
        prices: Sequence[str | None] = (),
    ) -> ContextVocabulary:
        """Rows for every value of every slot seen in training, in sorted order. No field may have another slot's
        name. Without `prices` there is no slot for them."""
        row = 1
        values: dict[str, dict[str, int]] = {}
        priced = [(cls.PRICE, prices)] if any(prices) else []
        for name, seen in [*fields.items(), (cls.SCENE, scenes), (cls.CONTROL, controls), *priced]:
            values[name] = {}
            for value in sorted({v for v in seen if v is not None}):
                values[name][value] = row
                row += 1
        return cls(tuple(fields), values, max_gap_ms)
