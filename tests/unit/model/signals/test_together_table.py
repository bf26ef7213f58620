"""What is in baskets together, against loops over baskets and pairs."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import Sequences
from model.signals.together import LARGEST, together_table
from service.artifact.features import EVENT_TYPES

N = 6
PURCHASE, VIEW = EVENT_TYPES.index("purchase"), EVENT_TYPES.index("view")
Event = tuple[int, int, int, int]  # item (N is none of the catalogue), type, time, session
events = st.tuples(
    st.integers(0, N), st.sampled_from([PURCHASE, VIEW]), st.integers(1, 3), st.sampled_from([0, 0, 1, 2])
)


def log_of(users: list[list[Event]], *, sessions: bool, times: bool = True) -> Sequences:
    flat = [event for user in users for event in user]
    item, kind, time_ms, session = (np.array([event[part] for event in flat], np.int64) for part in range(4))
    return Sequences(
        user_ids=[f"u{user}" for user in range(len(users))],
        item_ids=[f"i{item}" for item in range(N)],
        offsets=np.cumsum([0, *map(len, users)]).astype(np.int64),
        item=item,
        type=kind,
        time_ms=time_ms,
        has_time=times,
        session=session if sessions else None,
    )


def by_loops(users: list[list[Event]], *, sessions: bool) -> dict[tuple[int, int], float]:
    inside = [(u, event) for u, user in enumerate(users) for event in user if event[0] < N]
    if any(event[1] == PURCHASE for _, event in inside):
        inside = [(u, event) for u, event in inside if event[1] == PURCHASE]
    baskets: dict[tuple[int, bool, int], set[int]] = defaultdict(set)
    for u, (item, _, time, session) in inside:
        known = sessions and session > 0
        baskets[u, known, session if known else time].add(item)
    counted = [basket for basket in baskets.values() if len(basket) > 1]
    count = Counter(item for basket in counted for item in basket)
    pairs = Counter(pair for basket in counted for pair in itertools.permutations(basket, 2))
    return {(i, j): n / (math.sqrt(count[i] * count[j]) + 1) for (i, j), n in pairs.items()}


@given(st.lists(st.lists(events, max_size=8), max_size=5), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_table_is_that_of_the_loops(users: list[list[Event]], sessions: bool) -> None:
    table = together_table(log_of(users, sessions=sessions))
    found = {}
    if table is not None:
        rows, places = np.nonzero(table.similarity)
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            found[row, int(table.neighbour[row, place])] = float(table.similarity[row, place])
    assert found == pytest.approx(by_loops(users, sessions=sessions), abs=1e-6)


def test_without_times_and_in_huge_baskets_nothing_is_together() -> None:
    users = [[(0, PURCHASE, 1, 0), (1, PURCHASE, 1, 0)]]
    assert together_table(log_of(users, sessions=False)) is not None
    assert together_table(log_of(users, sessions=False, times=False)) is None
    many = LARGEST + 1
    bulk = Sequences(
        user_ids=["u"], item_ids=[str(n) for n in range(many)], offsets=np.array([0, many]), item=np.arange(many),
        type=np.full(many, PURCHASE), time_ms=np.ones(many, np.int64),
    )  # fmt: skip
    assert together_table(bulk) is None
