"""Runs of events as one right-padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact import graph_names as names
from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays


def padded_events(events: Sequence[EventArrays], rows: int, length: int) -> dict[str, IntArray]:
    """Returns items, types and times [rows, length] by input name, with zeros behind the events."""
    item, type_, time_ms = np.zeros((3, rows, length), np.int64)
    for row, e in enumerate(events):
        n = len(e)
        item[row, :n] = e.item
        type_[row, :n] = e.type
        time_ms[row, :n] = e.time_ms
    return {names.ITEM: item, names.TYPE: type_, names.TIME_MS: time_ms}
