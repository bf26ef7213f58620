"""Turns events into arrays, for training and serving alike.

Both use only the functions of this module, so that the encoder sees the same input in training and in serving. It needs
numpy only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.query_text import NO_GRAM, QUERY_GRAMS, KnownQueries, query_grams
from service.artifact.session_marks import mark_number

# Types of events that belong to a history. The order is part of the format of a trained model: append only.
EVENT_TYPES: tuple[str, ...] = ("other", "view", "click", "cart", "purchase", "rating", "search")
# Type of the start token if the model knows all types: one past the real ones, without embedding, gap or period.
START_TYPE = len(EVENT_TYPES)
_TYPE_INDEX = {name: index for index, name in enumerate(EVENT_TYPES)}

# Types of events that are logged but never part of a history.
SIGNAL_TYPES: frozenset[str] = frozenset({"impression"})

GAP_UNKNOWN = -1


def type_index(event_type: str) -> int:
    """Returns the index of an event type; an unknown type counts as "other"."""
    return _TYPE_INDEX.get(event_type, 0)


def known_type(event_type: str) -> bool:
    """Returns whether events of this type have a meaning of their own: the type is not read as "other"."""
    return event_type in _TYPE_INDEX or event_type in SIGNAL_TYPES


def is_history_event(event_type: str, item_id: str | None) -> bool:
    """Returns whether an event is part of the history; a search without an item and an impression are not."""
    return item_id is not None and event_type not in SIGNAL_TYPES


@dataclass(frozen=True, slots=True)
class EventArrays:
    """A run of n events, oldest first.

    Attributes:
        item: [n] int64 item indices.
        type: [n] int64 indices of event types.
        time_ms: [n] int64 Unix times in milliseconds; 0 without times.
        query: [n, QUERY_GRAMS] int64 n-grams of each event's query (`service.artifact.query_text`), 0 where there are
            none; None where no event has a query, or none is read.
        session: [n] int64 numbers of the events' sessions (`service.artifact.session_marks`), 0 where unknown; None
            where no event has one, or none is read.
    """

    item: IntArray
    type: IntArray
    time_ms: IntArray
    query: IntArray | None = None
    session: IntArray | None = None

    def __len__(self) -> int:
        return len(self.item)

    def after(self, start: int) -> EventArrays:
        """Returns the events from position `start` on."""
        return self.at(slice(start, None))

    def at(self, rows: slice) -> EventArrays:
        """Returns the events of these positions."""
        query = None if self.query is None else self.query[rows]
        session = None if self.session is None else self.session[rows]
        return EventArrays(self.item[rows], self.type[rows], self.time_ms[rows], query, session)


_NOTHING: IntArray = np.zeros(0, np.int64)
NO_EVENTS = EventArrays(_NOTHING, _NOTHING, _NOTHING)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The items, context values and event types that a model knows.

    With n trained items, row n of the item table stands for every unknown item and row n + 1 for the start of a
    history. An event type that was introduced after the training counts as "other".

    Attributes:
        item_index: Index of each item by its id.
        context: The slots of the decoder's context.
        has_time: Whether the model uses times.
        trained_items: n; None: all items of `item_index`.
        rows: Number of rows in the item table; an item with a larger index has no row yet, so the encoder treats it as
            unknown. None: all items have one.
        n_types: Number of event types.
        query_buckets: Buckets to which the network hashes the n-grams of queries; 0 if it reads no queries.
        known_queries: The queries that the network has vectors of; None if it has none.
        reads_sessions: Whether the network reads of which session an event is.
    """

    item_index: Mapping[str, int]
    context: ContextVocabulary
    has_time: bool
    trained_items: int | None = None
    rows: int | None = None
    n_types: int = len(EVENT_TYPES)
    query_buckets: int = 0
    known_queries: KnownQueries | None = None
    reads_sessions: bool = False

    @classmethod
    def of(
        cls,
        item_ids: Sequence[str],
        context: ContextVocabulary,
        has_time: bool,
        n_types: int = len(EVENT_TYPES),
        query_buckets: int = 0,
        known_queries: KnownQueries | None = None,
        *,
        reads_sessions: bool = False,
    ) -> Vocabulary:
        """Builds the vocabulary of items given in index order."""
        index = {item_id: row for row, item_id in enumerate(item_ids)}
        return cls(index, context, has_time, None, None, n_types, query_buckets, known_queries, reads_sessions)

    @property
    def unknown_item(self) -> int:
        """Index that stands for every unknown item."""
        return len(self.item_index) if self.trained_items is None else self.trained_items

    @property
    def start_item(self) -> int:
        """Index of the start token."""
        return self.unknown_item + 1

    def events(
        self,
        item_ids: Sequence[str],
        types: Sequence[str],
        times_ms: Sequence[int],
        queries: Sequence[str | None] | None = None,
        sessions: Sequence[str] = (),
    ) -> EventArrays:
        """Returns the encoder's input for events given oldest first.

        Unknown items keep their place in the sequence.

        Args:
            item_ids: [n] item ids.
            types: [n] names of event types.
            times_ms: [n] Unix times in milliseconds.
            queries: [n] the query of each event, None without one; None where no event has a query. A search without
                an item has the item id "".
            sessions: [n] mark of each event's session, "" without one; empty where no event has one.
        """
        unknown, index = self.unknown_item, self.item_index
        item = np.fromiter((index.get(i, unknown) for i in item_ids), np.int64, len(item_ids))
        if self.rows is not None:
            item[item >= self.rows] = unknown
        kind = self.known_types(np.fromiter((type_index(t) for t in types), np.int64, len(types)))
        time = np.asarray(times_ms, np.int64) if self.has_time else np.zeros(len(item_ids), np.int64)
        session = None
        if self.reads_sessions and sessions:
            session = np.fromiter((mark_number(mark) for mark in sessions), np.int64, len(item_ids))
        return EventArrays(item, kind, time, self.queries(queries), session)

    def queries(self, queries: Sequence[str | None] | None) -> IntArray | None:
        """Returns the n-grams [n, QUERY_GRAMS] of queries; None where there are none, or the model reads none."""
        if not self.query_buckets or queries is None:
            return None
        nothing = np.full(QUERY_GRAMS, NO_GRAM, np.int64)
        buckets, known = self.query_buckets, self.known_queries
        rows = [query_grams(query, buckets, known) if query else nothing for query in queries]
        return np.array(rows, np.int64).reshape(-1, QUERY_GRAMS)

    def known_types(self, types: IntArray) -> IntArray:
        """Returns [n] types, with "other" in place of those that the model was not trained with."""
        return types if self.n_types >= START_TYPE else np.where(types < self.n_types, types, 0)

    def with_start(self, events: EventArrays) -> EventArrays:
        """Returns the events with the learned start token before the first.

        The start token takes the time of the first event, so that the gap is 0; if there is none, its time is not used.
        """
        first_ms = events.time_ms[:1] if len(events) else np.zeros(1, np.int64)
        return EventArrays(
            np.concatenate([[self.start_item], events.item]),
            np.concatenate([[self.n_types], events.type]),
            np.concatenate([first_ms, events.time_ms]),
            None if events.query is None else np.pad(events.query, ((1, 0), (0, 0))),
            None if events.session is None else np.pad(events.session, (1, 0)),
        )


# The time since the last event is read in steps, so that the same question gets the same list a moment later. The first
# minute is one step; each later step is 41 % longer than the one before.
GAP_EDGES_MS: list[int] = [round(60_000 * 2 ** (step / 2)) for step in range(48)]
# What the model reads in each step: 0 in the first, then the geometric mean of the step's edges.
GAP_VALUES_MS: list[int] = [0, *(round(edge * 2**0.25) for edge in GAP_EDGES_MS)]


def quantised_gap_ms(gap_ms: IntArray) -> IntArray:
    """Returns what the model reads of gaps between the last event and the request.

    Args:
        gap_ms: [n] milliseconds, not negative.

    Returns:
        [n] milliseconds, equal for all gaps of a step.
    """
    return np.array(GAP_VALUES_MS, np.int64)[np.searchsorted(GAP_EDGES_MS, gap_ms, side="right")]


@dataclass(frozen=True)
class ContextVocabulary:
    """The slots of the decoder's context: user features, price band and style if items have them, scene, one category.

    The value of a slot is a row of one shared embedding table. Row 0 means "unknown" in every slot, and a value that
    was never seen in training is unknown.

    Attributes:
        fields: Names of the user features.
        values: Row of each value, by slot.
        max_gap_ms: The largest gap to the last event that the model was trained on, in milliseconds. A longer gap is
            unknown, because the network cannot be trusted to extrapolate.
    """

    fields: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    max_gap_ms: int = 0

    SCENE = "scene"
    CONTROL = "category"
    PRICE = "price_band"
    STYLE = "style"

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots, in the order of the network's input."""
        optional = (name for name in (self.PRICE, self.STYLE) if name in self.values and name not in self.fields)
        return (*self.fields, *optional, self.SCENE, self.CONTROL)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the slots with control codes, which say what a list is to contain."""
        codes = {self.CONTROL, self.PRICE, self.STYLE} - set(self.fields)
        return tuple(slot for slot in self.slots if slot in codes)

    @property
    def n_rows(self) -> int:
        """Number of rows of the context table."""
        return 1 + sum(len(rows) for rows in self.values.values())

    def encode(self, given: Mapping[str, Any]) -> IntArray:
        """Returns [slots] int64 rows of the context table for values by slot; a slot without a value is unknown (0)."""
        if not given:
            return np.zeros(len(self.slots), np.int64)
        rows = (self.values.get(slot, {}).get(str(given.get(slot)), 0) for slot in self.slots)
        return np.fromiter(rows, np.int64, len(self.slots))

    def gap(self, last_event_ms: int | None, now_ms: int | None) -> int:
        """Returns the milliseconds since the last event, quantised (see `quantised_gap_ms`).

        `GAP_UNKNOWN` if it is unknown or beyond `max_gap_ms`.
        """
        if last_event_ms is None or now_ms is None or self.max_gap_ms <= 0:
            return GAP_UNKNOWN
        gap = max(0, now_ms - last_event_ms)
        return GAP_VALUES_MS[bisect_right(GAP_EDGES_MS, gap)] if gap <= self.max_gap_ms else GAP_UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """Returns the vocabulary as the manifest keeps it."""
        return {"fields": list(self.fields), "values": self.values, "max_gap_ms": self.max_gap_ms}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ContextVocabulary:
        """Reads what `to_json` returned."""
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
        styles: Sequence[str] = (),
    ) -> ContextVocabulary:
        """Assigns a row to every value of every slot seen in training, in sorted order.

        Args:
            fields: Values of each user feature; no feature may have the name of another slot.
            scenes: Names of scenes.
            controls: Categories that a request can ask for.
            max_gap_ms: The largest gap to the last event, in milliseconds.
            prices: Price bands; without any there is no slot for them.
            styles: Styles that a request can ask for; without any there is no slot for them.
        """
        row = 1
        values: dict[str, dict[str, int]] = {}
        priced = [(cls.PRICE, prices)] if any(prices) else []
        styled = [(cls.STYLE, styles)] if styles else []
        for name, seen in [*fields.items(), (cls.SCENE, scenes), (cls.CONTROL, controls), *priced, *styled]:
            values[name] = {}
            for value in sorted({v for v in seen if v is not None}):
                values[name][value] = row
                row += 1
        return cls(tuple(fields), values, max_gap_ms)
