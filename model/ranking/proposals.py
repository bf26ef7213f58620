"""What the signals besides the network say of a question: their values, and the best items of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.scorers.signal_files import COLD
from service.signals.interface import ItemSignal, UserSignal
from service.signals.item_values import NO_VALUES, ItemValues
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

# Best items of each signal: its candidates without the network, and where the target is looked for by signal.
TOP = 100


@dataclass(frozen=True, eq=False)
class Proposal:
    """What the signals say after one history.

    Attributes:
        values: Values of each user signal.
        best: At most `TOP` items of each signal, the best first, without those that may not be listed.
    """

    values: Sequence[ItemValues]
    best: Mapping[str, IntArray]

    @property
    def items(self) -> IntArray:
        """All items that are among the best of any signal, ascending."""
        return np.unique(np.concatenate([*self.best.values(), np.zeros(0, np.int64)]))

    def in_turn(self, most: int) -> ItemValues:
        """Returns at most `most` of the best items, with 1 / (their best place in any list)."""
        lists = [items for items in self.best.values() if len(items)]
        if not lists:
            return NO_VALUES
        place = np.concatenate([np.arange(len(items)) for items in lists])
        order = np.argsort(place, kind="stable")
        items, first = np.unique(np.concatenate(lists)[order], return_index=True)
        kept = np.sort(np.argsort(first, kind="stable")[:most])
        return ItemValues(items[kept], (1 / (1 + place[order][first[kept]])).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Proposer:
    """The signals besides the network.

    Attributes:
        user_signals: Signals that depend on the user.
        item_signals: Signals that are the same for everybody.
        marks: Item signals that only mark items: they have columns, but propose nothing.
    """

    user_signals: Sequence[UserSignal]
    item_signals: Sequence[ItemSignal]
    marks: Sequence[ItemSignal] = ()

    @classmethod
    def of(cls, signals: Ranker) -> Self:
        """Takes the signals of a ranker; the one of cold items only marks."""
        marks = [signal for signal in signals.item_signals if signal.name == COLD]
        return cls(signals.user_signals, [one for one in signals.item_signals if one not in marks], marks)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the signals, in the order of `columns`."""
        return (*self.proposing, *(signal.name for signal in self.marks))

    @property
    def proposing(self) -> tuple[str, ...]:
        """Names of the signals that propose items."""
        return (*(signal.name for signal in self.user_signals), *(signal.name for signal in self.item_signals))

    def propose(self, history: UserHistory, excluded: IntArray) -> Proposal:
        """Asks every signal.

        Args:
            history: What is known of the user.
            excluded: Items that may not be listed.
        """
        values = [signal.values(history) for signal in self.user_signals]
        best = {signal.name: _best(v, excluded) for signal, v in zip(self.user_signals, values, strict=True)}
        for signal, head in zip(self.item_signals, self._heads, strict=True):
            some = head[: TOP + len(excluded)]
            best[signal.name] = some[~np.isin(some, excluded)][:TOP]
        return Proposal(values, best)

    def columns(self, proposal: Proposal, items: IntArray) -> FloatArray:
        """Returns the values [c, signals] of the items [c]."""
        columns = [values.of(items) for values in proposal.values]
        columns += [signal.values[items] for signal in (*self.item_signals, *self.marks)]
        if not columns:
            return np.zeros((len(items), 0), np.float32)
        table: FloatArray = np.column_stack(columns).astype(np.float32)
        return table

    @cached_property
    def _heads(self) -> list[IntArray]:
        """The items of every item signal, the largest value first."""
        return [np.argsort(-signal.values, kind="stable").astype(np.int64) for signal in self.item_signals]


def _best(values: ItemValues, excluded: IntArray) -> IntArray:
    """Returns at most `TOP` items with positive values, the largest first; of equal ones the lower index first."""
    ok = (values.values > 0) & ~np.isin(values.items, excluded)
    items, score = values.items[ok], values.values[ok]
    return items[np.argsort(-score, kind="stable")[:TOP]]
