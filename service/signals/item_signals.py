"""Signals that are the same for every user."""

from __future__ import annotations

from dataclasses import dataclass

from service.artifact.array_types import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ColumnSignal:
    """A value [n_items] float32 for each item."""

    name: str
    values: FloatArray
