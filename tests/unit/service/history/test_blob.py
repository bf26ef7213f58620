"""Packed states: whole or nothing, whatever arrays a layout has."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.graphs.state_layout import TIME_MS, ArrayDtype, StateArray, StateLayout, attention_layout
from service.engine.encoder_state import EncoderState
from service.history.state_blob import VersionedState, pack, unpack

LAYOUT = attention_layout(layers=2, window=5, d_head=4, hidden=6, dtype="float16")
BANK = StateLayout(
    6, 5, (StateArray("bank", "float32", (3, 4)), StateArray(TIME_MS, "int64", (5,), 0)), remembers_trimmed=True
)


def state(layout: StateLayout, n: int, seed: int = 0) -> EncoderState:
    """Random values, with zeros in the rows that mean nothing."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for one in layout.arrays:
        values = (rng.normal(size=one.shape) * 40).astype(one.dtype)
        if one.rows is not None:
            np.moveaxis(values, one.rows, 0)[: layout.window - n] = 0
        arrays[one.name] = values
    return EncoderState(arrays, n, rng.normal(size=layout.hidden).astype(np.float32))


def base(layout: StateLayout = LAYOUT, n: int = 3) -> VersionedState:
    return VersionedState.of(state(layout, n), "0123456789abcdef", 1_700_000_000_000.0009765625)


def packed(layout: StateLayout = LAYOUT, n: int = 3) -> bytes:
    return pack(base(layout, n), layout)


@st.composite
def layouts(draw: st.DrawFn) -> StateLayout:
    """Arrays of every type, by row along any axis or of fixed size, also empty ones."""
    window, found = draw(st.integers(1, 9)), []
    for number in range(draw(st.integers(0, 4))):
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        rows = draw(st.none() | st.integers(0, len(shape)))
        if rows is not None:
            shape.insert(rows, window)
        dtype = draw(st.sampled_from(get_args(ArrayDtype)))
        found.append(StateArray(f"array_{number}", dtype, tuple(shape), rows))
    found.insert(draw(st.integers(0, len(found))), StateArray(TIME_MS, "int64", (window,), 0))
    return StateLayout(draw(st.integers(1, 8)), window, tuple(found), draw(st.booleans()))


@given(layouts(), st.data())
def test_a_state_of_any_layout_comes_back_exactly(layout: StateLayout, data: st.DataObject) -> None:
    since = data.draw(st.sampled_from([-1.0, 1_600_000_000_000.25]))
    one = dataclasses.replace(base(layout, data.draw(st.integers(0, layout.window))), since=since)
    blob = pack(one, layout)
    back = unpack(blob, layout)
    assert back is not None and back.state is not None and one.state is not None
    assert (back.version, back.last_score, back.since, back.state.n_valid) == (
        one.version, one.last_score, since, one.state.n_valid,
    )  # fmt: skip
    assert back.state.fits(layout) and list(back.state.arrays) == [a.name for a in layout.arrays]
    for name, want in one.state.arrays.items():
        np.testing.assert_array_equal(back.state.arrays[name], want)
        assert not back.state.arrays[name].flags.writeable
    np.testing.assert_array_equal(back.h, one.h)
    assert len(blob) - layout.bytes_of(one.state.n_valid) == len(packed()) - LAYOUT.bytes_of(3)


@given(layouts())
def test_a_layout_comes_back_from_a_manifest(layout: StateLayout) -> None:
    assert StateLayout.from_json(layout.to_json()) == layout


@given(st.data())
def test_a_damaged_state_is_none(data: st.DataObject) -> None:
    blob = bytearray(packed())
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    assert unpack(bytes(blob), LAYOUT) is None


@given(st.integers(0, 10_000))
def test_a_truncated_state_is_none(length: int) -> None:
    blob = packed()
    assert unpack(blob[: length % len(blob)], LAYOUT) is None


@given(st.binary(max_size=200))
def test_foreign_bytes_are_none(junk: bytes) -> None:
    assert unpack(junk, LAYOUT) is None
    assert unpack(packed() + junk, LAYOUT) is None or not junk


OTHERS: dict[str, StateLayout] = {
    "layers": attention_layout(3, 5, 4, 6, "float16"),
    "window": attention_layout(2, 6, 4, 6, "float16"),
    "head": attention_layout(2, 5, 2, 6, "float16"),
    "hidden": attention_layout(2, 5, 4, 5, "float16"),
    "float32": attention_layout(2, 5, 4, 6, "float32"),
    "int8": attention_layout(2, 5, 4, 6, "int8"),
    "other names": dataclasses.replace(
        LAYOUT, arrays=(dataclasses.replace(LAYOUT.arrays[0], name="vk"), LAYOUT.arrays[1])
    ),
    "other order": dataclasses.replace(LAYOUT, arrays=LAYOUT.arrays[::-1]),
    "other memory": dataclasses.replace(LAYOUT, remembers_trimmed=True),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_state_of_another_layout_is_none(other: str) -> None:
    assert unpack(packed(), OTHERS[other]) is None


def test_no_blob_is_none() -> None:
    assert unpack(None, LAYOUT) is None


def test_a_short_history_takes_less_space_than_a_full_window() -> None:
    per_event = 8 + 2 * 2 * 2 * 4
    assert len(packed(n=5)) - len(packed(n=1)) == 4 * per_event
    assert len(packed(BANK, 5)) - len(packed(BANK, 1)) == 4 * 8, "what has a fixed size is stored whole"


def test_what_lies_outside_the_valid_rows_does_not_travel() -> None:
    dirty = base(n=2)
    assert dirty.state is not None
    dirty.state.arrays["kv"][:, :, 0] = 7
    back = unpack(pack(dirty, LAYOUT), LAYOUT)
    assert back is not None and back.state is not None and not back.state.arrays["kv"][:, :, :3].any()


@given(layouts(), st.data())
def test_the_hidden_state_alone_comes_back_exactly(layout: StateLayout, data: st.DataObject) -> None:
    full = base(layout, data.draw(st.integers(0, layout.window)))
    assert full.state is not None
    one = VersionedState.of(full.state, full.version, full.last_score, h_only=True)
    blob = pack(one, layout)
    back = unpack(blob, layout)
    assert back is not None and back.state is None
    assert (back.version, back.last_score) == (one.version, one.last_score)
    np.testing.assert_array_equal(back.h, full.h)
    assert len(blob) < 100 + 4 * layout.hidden


def test_a_state_that_does_not_fit_together_is_not_packed() -> None:
    one = base()
    assert one.state is not None
    with pytest.raises(ValueError, match="state layout"):
        pack(dataclasses.replace(one, state=dataclasses.replace(one.state, n_valid=6)), LAYOUT)
    with pytest.raises(ValueError, match="state layout"):
        pack(one, BANK)
    with pytest.raises(ValueError, match="16 hex digits"):
        pack(dataclasses.replace(one, version=""), LAYOUT)


TIMES = {"name": TIME_MS, "dtype": "int64", "shape": [5], "rows": 0}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another format": ({"format": 2}, "it has format 2, this service reads 1"),
    "no times": ({"arrays": []} | {"arrays": [TIMES | {"name": "bank"}]}, "needs the array time_ms"),
    "a name twice": ({"arrays": [TIMES, TIMES]}, "different names"),
    "a foreign type": ({"arrays": [TIMES, TIMES | {"name": "bank", "dtype": "float64"}]}, "the type float64"),
    "rows of another number": ({"arrays": [TIMES, TIMES | {"name": "bank", "shape": [4]}]}, "no axis 0 of 5 rows"),
    "no hidden state": ({"hidden": 0}, "a hidden state of 0 numbers"),
    "something missing": ({"arrays": [{"name": TIME_MS}]}, "it is damaged"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_layout_that_cannot_be_used_says_why(wrong: str) -> None:
    change, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        StateLayout.from_json(BANK.to_json() | change)


def test_the_states_of_the_default_take_at_most_16_kib() -> None:
    assert attention_layout(layers=2, window=50, d_head=32, hidden=128, dtype="float16").bytes_max <= 16 * 1024
