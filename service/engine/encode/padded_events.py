"""Runs of events as one right-padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays
from service.artifact.graphs import graph_names as names
from service.artifact.query_text import NO_GRAM, QUERY_GRAMS


def padded_events(events: Sequence[EventArrays], rows: int, length: int) -> dict[str, IntArray]:
    """Returns items, types and times [rows, length] by input name, with zeros behind the events."""
    item, type_, time_ms = np.zeros((3, rows, length), np.int64)
    for row, e in enumerate(events):
        n = len(e)
        item[row, :n] = e.item
        type_[row, :n] = e.type
        time_ms[row, :n] = e.time_ms
    return {names.ITEM: item, names.TYPE: type_, names.TIME_MS: time_ms}


def padded_queries(events: Sequence[EventArrays], rows: int, length: int) -> IntArray:
    """Returns the n-grams [rows, length, QUERY_GRAMS] of the events' queries, `NO_GRAM` where there are none."""
    query = np.full((rows, length, QUERY_GRAMS), NO_GRAM, np.int64)
    for row, e in enumerate(events):
        if e.query is not None:
            query[row, : len(e)] = e.query
    return query


def padded_sessions(events: Sequence[EventArrays], rows: int, length: int) -> IntArray:
    """Returns the numbers [rows, length] of the events' sessions, 0 where there are none."""
    session = np.zeros((rows, length), np.int64)
    for row, e in enumerate(events):
        if e.session is not None:
            session[row, : len(e)] = e.session
    return session
