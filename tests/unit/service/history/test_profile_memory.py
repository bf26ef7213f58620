"""What a profile keeps of its user's signals: in little memory, bounded and counted, and the same bits again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.ranker_weights import RankerWeights
from service.history.profile import SIGNAL_BYTES_MAX, Profile
from service.lifecycle.served_model import ServedModel
from service.signals.item_values import ItemValues, PackedValues
from service.signals.ranker import Ranker
from service.store.records import StoredEvent, UserRecord

N, NEIGHBOURS = 30_000, 500
GROUPS = {"default": {"item_cf": 1.0, "walk": 1.0}, "new": {"item_cf": 2.0, "walk": 2.0}}


@pytest.fixture(scope="module")
def model() -> ServedModel:
    """What a profile reads of a model: item i is called "i"."""
    rng = np.random.default_rng(0)
    neighbour = rng.integers(0, N, (N, NEIGHBOURS), dtype=np.int32)
    similarity = np.broadcast_to(np.float32(1), neighbour.shape)
    tables = {"item_cf": neighbour, "walk": neighbour[::-1]}
    parts = {name: NeighbourTable(table, similarity, check_values=False) for name, table in tables.items()}
    parts |= {"popularity": cast("Any", ItemColumn(np.ones(N, np.float32)))}
    ranker = Ranker.of(parts, RankerWeights(tuple(parts), GROUPS))
    places = lambda ids: np.array([int(item) for item in ids], np.int64)  # noqa: E731
    found = SimpleNamespace(ranker=ranker, places=places, engine=SimpleNamespace(receptive_field=50))
    return cast("ServedModel", found)


def profile(model: ServedModel, events: int) -> Profile:
    stored = tuple(StoredEvent(str(7 * n), "view", 1000 * n, f"e{n}", 1000.0 * n) for n in range(events))
    return Profile(None, model, UserRecord("1", stored))


@given(st.sets(st.integers(0, 2**40), max_size=50))
def test_packed_values_are_the_same_bits(items: set[int]) -> None:
    values = ItemValues(np.array(sorted(items), np.int64), np.random.default_rng(0).random(len(items), np.float32))
    packed = PackedValues.of(values)
    again = packed.unpacked()
    assert (again.items.dtype.name, again.values.dtype.name) == ("int64", "float32")
    assert (again.items.tolist(), again.values.tobytes()) == (values.items.tolist(), values.values.tobytes())
    assert packed.nbytes <= (8 if max(items, default=0) < 2**32 else 12) * len(items)


@pytest.mark.parametrize(("events", "kept"), [(0, True), (10, True), (50, False)])
def test_a_profile_keeps_few_bytes_of_its_signals_and_says_the_same_again(
    model: ServedModel, events: int, kept: bool
) -> None:
    one = profile(model, events)
    before = one.nbytes
    first = one.signals(one.history).unpacked()
    assert (one.kept_signals is not None) == kept
    assert one.nbytes - before == (6 * len(first) if kept else 0) <= SIGNAL_BYTES_MAX
    assert kept == (6 * len(first) <= SIGNAL_BYTES_MAX)
    again = one.signals(one.history).unpacked()
    assert (again.items.tobytes(), again.values.tobytes()) == (first.items.tobytes(), first.values.tobytes())


def test_the_signals_of_one_group_are_kept_and_never_taken_for_anothers(model: ServedModel) -> None:
    one = profile(model, 5)
    everybody = one.signals(one.history).unpacked()
    size = one.nbytes
    new = one.signals(one.history, 1).unpacked()
    np.testing.assert_array_equal(new.values, 2 * everybody.values)
    assert one.nbytes == size
    np.testing.assert_array_equal(one.signals(one.history).unpacked().values, everybody.values)
