"""Signals see the same history offline, in a service that has followed every event, and in one that begins anew."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.rankers import history_of
from service.artifact.features import EventArrays
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.signal_files import SignalPart
from service.signals.ranker import Ranker
from service.signals.user_history import SeenBefore, UserHistory

N = 9


def ranker() -> Ranker:
    rng = np.random.default_rng(5)
    neighbour = np.stack([rng.permutation(np.delete(np.arange(N), i))[:4] for i in range(N)]).astype(np.int32)
    similarity = -np.sort(-rng.random((N, 4), np.float32))
    parts: dict[str, SignalPart] = {
        "item_cf": NeighbourTable(neighbour, similarity, 1.0, 50),
        "transitions": NeighbourTable(neighbour[::-1].copy() % N, similarity, 0.8, 3, check_values=False),
        "repeat": OwnItems(N, 0.995),
        "popularity": ItemColumn(np.zeros(N, np.float32)),
    }
    return Ranker.of(
        parts, RankerWeights(tuple(parts), {"default": {"item_cf": 1.5, "transitions": 2, "repeat": -0.7}})
    )


RANKER = ranker()
# Item, and milliseconds since the event before it.
events_ = st.lists(st.tuples(st.integers(0, N + 1), st.integers(0, 2500)), max_size=25)


def same(one: UserHistory, other: UserHistory) -> bool:
    found, expected = RANKER.user(one), RANKER.user(other)
    return (found.items.tobytes(), found.values.tobytes()) == (expected.items.tobytes(), expected.values.tobytes())


@given(events_, st.integers(1, 8), st.integers(0, 4), st.data())
def test_signals_of_a_rebuilt_history_equal_a_fresh_start(
    events: list[tuple[int, int]], receptive_field: int, more: int, data: st.DataObject
) -> None:
    """A log keeps at least the receptive field; what left it came to the record in any order, merged now and then."""
    items = np.array([item for item, _ in events], np.int64)
    times = np.cumsum([gap for _, gap in events]).astype(np.int64)
    offline = history_of(EventArrays(items, np.zeros(len(items), np.int64), times), receptive_field, has_time=True)
    cut = max(0, len(items) - receptive_field - more)
    order = np.array(data.draw(st.permutations(range(cut))), np.int64)
    merged_at = data.draw(st.integers(0, cut))
    first = SeenBefore.of(items[order[:merged_at]], times[order[:merged_at]])
    late = order[merged_at:]
    before = SeenBefore.of(
        np.concatenate([first.items, items[late]]),
        np.concatenate([first.last_ms, times[late]]),
        np.concatenate([first.counts, np.ones(len(late), np.int64)]),
    )
    served = UserHistory.of(items[cut:], times[cut:], receptive_field, before)
    for name in ("items", "counts", "last_ms"):
        assert getattr(served.before, name).tolist() == getattr(offline.before, name).tolist()
    assert served.items.tolist() == offline.items.tolist()
    assert same(served, offline)


def test_a_log_without_times_is_a_second_for_each_event() -> None:
    events = EventArrays(np.array([4, 2, 4, 1, 3]), np.zeros(5, np.int64), np.zeros(5, np.int64))
    history = history_of(events, 2, has_time=False)
    assert (history.before.items.tolist(), history.before.counts.tolist()) == ([2, 4], [1, 2])
