"""Packed states: whole or nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.encoder_state import EncoderState, StateShape
from service.history.state_blob import VersionedState, pack, unpack

SHAPE = StateShape(layers=2, window=5, head_dim=4, hidden=6, dtype="float16")


def state(shape: StateShape, n: int, seed: int = 0) -> EncoderState:
    rng = np.random.default_rng(seed)
    start = shape.window - n
    kv = (rng.normal(size=(shape.layers, 2, shape.window, shape.head_dim)) * 40).astype(shape.dtype)
    kv[:, :, :start] = 0
    scale = np.zeros(0, np.float32)
    if shape.dtype == "int8":
        scale = rng.random((shape.layers, 2, shape.window), np.float32)
        scale[:, :, :start] = 0
    times = rng.integers(0, 2**42, shape.window)
    times[:start] = 0
    return EncoderState(kv, scale, times, n, rng.normal(size=shape.hidden).astype(np.float32))


def base(shape: StateShape = SHAPE, n: int = 3) -> VersionedState:
    return VersionedState.of(state(shape, n), "0123456789abcdef", 1_700_000_000_000.0009765625)


def packed(shape: StateShape = SHAPE, n: int = 3) -> bytes:
    return pack(base(shape, n), shape)


shapes = st.builds(
    StateShape,
    layers=st.integers(1, 4),
    window=st.integers(1, 9),
    head_dim=st.integers(1, 8),
    hidden=st.integers(1, 8),
    dtype=st.sampled_from(["float16", "float32", "int8"]),
)


@given(shapes, st.data())
def test_a_state_comes_back_exactly(shape: StateShape, data: st.DataObject) -> None:
    one = base(shape, data.draw(st.integers(0, shape.window)))
    back = unpack(pack(one, shape), shape)
    assert back is not None and back.state is not None and one.state is not None
    assert (back.version, back.last_score, back.state.n_valid) == (
        one.version, one.last_score, one.state.n_valid,
    )  # fmt: skip
    for name in ("kv", "scale", "time_ms", "h"):
        got, want = getattr(back.state, name), getattr(one.state, name)
        assert got.dtype == want.dtype and got.shape == want.shape, name
        np.testing.assert_array_equal(got, want)
    assert back.state.shape == shape


@given(st.data())
def test_a_damaged_state_is_none(data: st.DataObject) -> None:
    blob = bytearray(packed())
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    assert unpack(bytes(blob), SHAPE) is None


@given(st.integers(0, 10_000))
def test_a_truncated_state_is_none(length: int) -> None:
    blob = packed()
    assert unpack(blob[: length % len(blob)], SHAPE) is None


@given(st.binary(max_size=200))
def test_foreign_bytes_are_none(junk: bytes) -> None:
    assert unpack(junk, SHAPE) is None
    assert unpack(packed() + junk, SHAPE) is None or not junk


@pytest.mark.parametrize("change", [{"layers": 3}, {"window": 6}, {"head_dim": 2}, {"hidden": 5}])
def test_a_state_of_another_shape_is_none(change: dict[str, Any]) -> None:
    assert unpack(packed(), dataclasses.replace(SHAPE, **change)) is None


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_state_of_another_dtype_is_none(dtype: str) -> None:
    assert unpack(packed(), dataclasses.replace(SHAPE, dtype=dtype)) is None


def test_no_blob_is_none() -> None:
    assert unpack(None, SHAPE) is None


def test_a_short_history_takes_less_space_than_a_full_window() -> None:
    short, full = len(packed(n=1)), len(packed(n=5))
    per_event = 8 + 2 * SHAPE.layers * 2 * SHAPE.head_dim
    assert full - short == 4 * per_event


def test_what_lies_outside_the_valid_rows_does_not_travel() -> None:
    dirty = base(n=2)
    assert dirty.state is not None
    dirty.state.kv[:, :, 0] = 7
    back = unpack(pack(dirty, SHAPE), SHAPE)
    assert back is not None and back.state is not None and not back.state.kv[:, :, :3].any()


@given(shapes, st.data())
def test_the_hidden_state_alone_comes_back_exactly(shape: StateShape, data: st.DataObject) -> None:
    full = base(shape, data.draw(st.integers(0, shape.window)))
    assert full.state is not None
    one = VersionedState.of(full.state, full.version, full.last_score, h_only=True)
    blob = pack(one, shape)
    back = unpack(blob, shape)
    assert back is not None and back.state is None
    assert (back.version, back.last_score) == (one.version, one.last_score)
    np.testing.assert_array_equal(back.h, full.h)
    assert len(blob) < 100 + 4 * shape.hidden


def test_a_state_that_does_not_fit_together_is_not_packed() -> None:
    one = base()
    assert one.state is not None
    with pytest.raises(ValueError, match="state shape"):
        pack(dataclasses.replace(one, state=dataclasses.replace(one.state, n_valid=6)), SHAPE)
    with pytest.raises(ValueError, match="state shape"):
        pack(one, dataclasses.replace(SHAPE, layers=3))
    with pytest.raises(ValueError, match="16 hex digits"):
        pack(dataclasses.replace(one, version=""), SHAPE)
