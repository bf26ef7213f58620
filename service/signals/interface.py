"""What the ranker asks of a signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from service.artifact.array_types import FloatArray, IntArray
from service.signals.item_values import ItemValues
from service.signals.user_history import UserHistory


@dataclass(frozen=True, slots=True)
class Causes:
    """What each event of a history contributed to the values of k items: together they add up to the values.

    Attributes:
        log: [k, n] float32, of each event of the retained log.
        before: [k, m] float32, of each item seen before the log, with all its events.
    """

    log: FloatArray
    before: FloatArray


class UserSignal(Protocol):
    """A signal that depends on the user."""

    @property
    def name(self) -> str:
        """Name in files, weights and explanations."""

    def values(self, history: UserHistory) -> ItemValues:
        """Returns the items' values, divided by the largest of the whole catalogue: they are in 0 … 1.

        No filter and no exclusion enters, so that an item's value is the same under all of them. The same history gives
        the same bits.
        """

    def causes(self, history: UserHistory, items: IntArray) -> Causes:
        """Returns what each event of the history contributed to the values of the items [k]."""


class ItemSignal(Protocol):
    """A signal that is the same for every user."""

    @property
    def name(self) -> str:
        """Name in files, weights and explanations."""

    @property
    def values(self) -> FloatArray:
        """[n_items] float32 value of each item."""
