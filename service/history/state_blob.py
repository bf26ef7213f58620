"""Encoder states, packed as bytes.

    header    magic, format, content, dtype, layers, window, head dim, hidden, valid rows, score of the last event,
              version of the log, step of the encoder
    body      times, scales, keys and values of the valid rows (content "full" only), h; little-endian
    checksum  blake2b over everything before it

Only the valid rows are packed, so a history shorter than the window takes space only for the events it has. A blob with
content "h_only" has no keys and values: a list can be decoded from it, but no event can be added. A blob of an earlier
format, which names no step, is not read: its state is encoded anew.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.artifact.encoder_version import DIGEST_BYTES
from service.engine.encoder_state import STATE_DTYPES, EncoderState, StateShape
from service.store.log_version import VERSION_LENGTH

_MAGIC = b"G4RS"
_FORMAT = 3
_HEADER = struct.Struct(f"<4sBBBHHHHHd{VERSION_LENGTH}s{DIGEST_BYTES}s")
_NO_STEP = bytes(DIGEST_BYTES)
_FULL, _H_ONLY = 0, 1
_CHECKSUM_BYTES = 8
_DTYPE_CODE = {dtype.name: code for code, dtype in enumerate(STATE_DTYPES)}


@dataclass(frozen=True, slots=True)
class VersionedState:
    """An encoder state, and the version of the log that it was computed from.

    Attributes:
        h: [d] Hidden state after the newest event.
        state: Keys and values, for adding events. None when only `h` was kept, or when the model has no other state.
        version: Version of the log that the state covers (`service.store.log_version`).
        last_score: Score of the newest event of that log.
        step: The step of the encoder that has all items of that log (`service.artifact.encoder_version`).
    """

    h: npt.NDArray[np.float32]
    state: EncoderState | None
    version: str
    last_score: float
    step: bytes = _NO_STEP

    @classmethod
    def of(
        cls, state: EncoderState, version: str, last_score: float, step: bytes = _NO_STEP, *, h_only: bool = False
    ) -> VersionedState:
        """Labels an encoder state with its log version and step; drops keys and values when `h_only` is set."""
        return cls(state.h, state if state.extends and not h_only else None, version, last_score, step)


def pack(versioned: VersionedState, shape: StateShape) -> bytes:
    """Packs a state as bytes.

    Raises:
        ValueError: The version is malformed, or the arrays do not match `shape`.
    """
    state = versioned.state
    if len(versioned.version) != VERSION_LENGTH:
        raise ValueError(f"a log version has {VERSION_LENGTH} hex digits, got {versioned.version!r}")
    n = 0 if state is None else state.n_valid
    if len(versioned.step) != DIGEST_BYTES:
        raise ValueError(f"a step of an encoder has {DIGEST_BYTES} bytes, got {len(versioned.step)}")
    if len(versioned.h) != shape.hidden or (state is not None and (state.shape != shape or not 0 <= n <= shape.window)):
        raise ValueError("the state's arrays do not match the model's state shape")
    header = _HEADER.pack(
        _MAGIC, _FORMAT, _H_ONLY if state is None else _FULL, _DTYPE_CODE[shape.dtype],
        shape.layers, shape.window, shape.head_dim, shape.hidden, n,
        versioned.last_score, versioned.version.encode(), versioned.step,
    )  # fmt: skip
    parts = [header, *(() if state is None else _rows(state, shape)), _bytes(versioned.h, "<f4")]
    content = b"".join(parts)
    return content + _checksum(content)


def _rows(state: EncoderState, shape: StateShape) -> list[bytes]:
    start = shape.window - state.n_valid
    parts = [_bytes(state.time_ms[start:], "<i8")]
    if shape.dtype == "int8":
        parts.append(_bytes(state.scale[:, :, start:], "<f4"))
    parts.append(_bytes(state.kv[:, :, start:], state.kv.dtype.newbyteorder("<")))
    return parts


def unpack(blob: bytes | None, shape: StateShape) -> VersionedState | None:
    """Unpacks a stored state; the arrays are read-only.

    Never raises: whatever is wrong with a blob, the state can be rebuilt from the log.

    Returns:
        None when there is no blob, or when it is damaged or has another shape or format.
    """
    if blob is None or len(blob) < _HEADER.size + _CHECKSUM_BYTES:
        return None
    content, checksum = blob[:-_CHECKSUM_BYTES], blob[-_CHECKSUM_BYTES:]
    magic, fmt, kind, code, layers, window, head_dim, hidden, n, last_score, version, step = _HEADER.unpack_from(
        content
    )
    if magic != _MAGIC or fmt != _FORMAT or _checksum(content) != checksum:
        return None
    fits = (layers, window, head_dim, hidden) == (shape.layers, shape.window, shape.head_dim, shape.hidden)
    if not fits or code != _DTYPE_CODE[shape.dtype] or n > window:
        return None
    if kind not in (_FULL, _H_ONLY) or len(content) != _HEADER.size + _body_bytes(shape, n, kind == _H_ONLY):
        return None
    h = np.frombuffer(content, "<f4", shape.hidden, len(content) - 4 * shape.hidden).astype(
        np.float32
    )  # a copy, which does not keep the blob alive
    h.flags.writeable = False
    state = None if kind == _H_ONLY else _read_rows(content, shape, n, h)
    return VersionedState(h, state, version.decode("ascii", "replace"), last_score, step)


def _read_rows(content: bytes, shape: StateShape, n: int, h: npt.NDArray[np.float32]) -> EncoderState:
    cursor = _HEADER.size

    def take(dtype: np.dtype[np.generic], *dims: int) -> npt.NDArray[np.generic]:
        nonlocal cursor
        size = math.prod(dims)
        array = np.frombuffer(content, dtype.newbyteorder("<"), size, cursor).reshape(dims)
        cursor += size * dtype.itemsize
        return array

    def padded(rows: npt.NDArray[np.generic], axis: int) -> npt.NDArray[np.generic]:
        """Puts the rows at the end of a full window; the slots before them are zero."""
        dims = list(rows.shape)
        dims[axis] = shape.window
        full = np.zeros(dims, rows.dtype.newbyteorder("="))
        full[(slice(None),) * axis + (slice(shape.window - n, None),)] = rows
        full.flags.writeable = False
        return full

    times = padded(take(np.dtype(np.int64), n), 0).astype(np.int64, copy=False)
    scale = np.zeros(0, np.float32)
    if shape.dtype == "int8":
        rows = take(np.dtype(np.float32), shape.layers, 2, n)
        scale = padded(rows, 2).astype(np.float32, copy=False)
    kv = padded(take(np.dtype(shape.dtype), shape.layers, 2, n, shape.head_dim), 2)
    return EncoderState(kv, scale, times, n, h)


def _body_bytes(shape: StateShape, n: int, h_only: bool) -> int:
    if h_only:
        return 4 * shape.hidden
    scales = 4 * shape.layers * 2 * n if shape.dtype == "int8" else 0
    keys_and_values = np.dtype(shape.dtype).itemsize * shape.layers * 2 * n * shape.head_dim
    return 8 * n + scales + keys_and_values + 4 * shape.hidden


def _bytes(array: npt.NDArray[np.generic], dtype: str | np.dtype[np.generic]) -> bytes:
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()
