"""Encoder states, packed as bytes.

    header    magic, format, content, digest of the layout, valid rows, score of the last event, score of the
              checkpoint, score at which it began, version of the log, step of the encoder
    body      the arrays in the order of the layout (content "full" only), h; little-endian
    checksum  blake2b over everything before it

Of arrays by row only the valid rows are packed, so a history shorter than the window takes space only for the events it
has. A blob with content "h_only" has no arrays: a list can be decoded from it, but no event can be added. A blob of an
earlier format is not read: its state is encoded anew.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.graphs import state_layout
from service.artifact.graphs.encoder_version import DIGEST_BYTES
from service.artifact.graphs.state_layout import StateArray, StateLayout
from service.engine.encoder_state import EncoderState
from service.store.log_version import VERSION_LENGTH

_MAGIC = b"G4RS"
_FORMAT = 4
_HEADER = struct.Struct(f"<4sBB{state_layout.DIGEST_BYTES}sHddd{VERSION_LENGTH}s{DIGEST_BYTES}s")
_NO_STEP = bytes(DIGEST_BYTES)
_FULL, _H_ONLY = 0, 1
_CHECKSUM_BYTES = 8
NO_CHECKPOINT = -1.0


@dataclass(frozen=True, slots=True)
class VersionedState:
    """An encoder state, and the version of the log that it was computed from.

    Attributes:
        h: [d] Hidden state after the newest event.
        state: The arrays, for adding events. None when only `h` was kept, or when the model has no other state.
        version: Version of the log that the state covers (`service.store.log_version`).
        last_score: Score of the newest event of that log.
        step: The step of the encoder that has all items of that log (`service.artifact.graphs.encoder_version`).
        since: `last_score` of the checkpoint that a rebuild would start from (`service.history.trim_checkpoint`);
            `NO_CHECKPOINT` if there is none.
        began: Score of the oldest event that it covers, if the log had been trimmed before that; `NO_CHECKPOINT` if it
            covers the history from its start.
        checkpoint: A newer checkpoint, made with this state and not stored yet.
    """

    h: npt.NDArray[np.float32]
    state: EncoderState | None
    version: str
    last_score: float
    step: bytes = _NO_STEP
    since: float = NO_CHECKPOINT
    began: float = NO_CHECKPOINT
    checkpoint: VersionedState | None = None

    @classmethod
    def of(
        cls, state: EncoderState, version: str, last_score: float, step: bytes = _NO_STEP, *, h_only: bool = False
    ) -> VersionedState:
        """Labels an encoder state with its log version and step; drops the arrays when `h_only` is set."""
        return cls(state.h, state if state.extends and not h_only else None, version, last_score, step)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, with those of a checkpoint that is not stored yet."""
        own = 0 if self.state is None else self.state.nbytes
        return own + (0 if self.checkpoint is None else self.checkpoint.nbytes)


def pack(versioned: VersionedState, layout: StateLayout) -> bytes:
    """Packs a state as bytes.

    Raises:
        ValueError: The version is malformed, or the arrays do not match `layout`.
    """
    state = versioned.state
    if len(versioned.version) != VERSION_LENGTH:
        raise ValueError(f"a log version has {VERSION_LENGTH} hex digits, got {versioned.version!r}")
    if len(versioned.step) != DIGEST_BYTES:
        raise ValueError(f"a step of an encoder has {DIGEST_BYTES} bytes, got {len(versioned.step)}")
    if len(versioned.h) != layout.hidden or (state is not None and not state.fits(layout)):
        raise ValueError("the state's arrays do not match the model's state layout")
    header = _HEADER.pack(
        _MAGIC, _FORMAT, _H_ONLY if state is None else _FULL, layout.digest, 0 if state is None else state.n_valid,
        versioned.last_score, versioned.since, versioned.began, versioned.version.encode(), versioned.step,
    )  # fmt: skip
    arrays = [] if state is None else [_packed(state, array) for array in layout.arrays]
    content = b"".join([header, *arrays, _bytes(versioned.h, "<f4")])
    return content + _checksum(content)


def _packed(state: EncoderState, array: StateArray) -> bytes:
    values = state.arrays[array.name]
    if array.rows is not None:
        values = values[(slice(None),) * array.rows + (slice(array.shape[array.rows] - state.n_valid, None),)]
    return _bytes(values, values.dtype.newbyteorder("<"))


def unpack(blob: bytes | None, layout: StateLayout) -> VersionedState | None:
    """Unpacks a stored state; the arrays are read-only.

    Never raises: whatever is wrong with a blob, the state can be encoded anew.

    Returns:
        None when there is no blob, or when it is damaged or has another layout or format.
    """
    if blob is None or len(blob) < _HEADER.size + _CHECKSUM_BYTES:
        return None
    content, checksum = blob[:-_CHECKSUM_BYTES], blob[-_CHECKSUM_BYTES:]
    magic, fmt, kind, digest, n, last_score, since, began, version, step = _HEADER.unpack_from(content)
    if magic != _MAGIC or fmt != _FORMAT or _checksum(content) != checksum:
        return None
    if digest != layout.digest or n > layout.window or kind not in (_FULL, _H_ONLY):
        return None
    if len(content) != _HEADER.size + (4 * layout.hidden if kind == _H_ONLY else layout.bytes_of(n)):
        return None
    h = np.frombuffer(content, "<f4", layout.hidden, len(content) - 4 * layout.hidden).astype(
        np.float32
    )  # a copy, which does not keep the blob alive
    h.flags.writeable = False
    state = None if kind == _H_ONLY else EncoderState(_read_arrays(content, layout, n), n, h)
    return VersionedState(h, state, version.decode("ascii", "replace"), last_score, step, since, began)


def _read_arrays(content: bytes, layout: StateLayout, n: int) -> dict[str, npt.NDArray[Any]]:
    cursor, arrays = _HEADER.size, {}
    for array in layout.arrays:
        dtype = np.dtype(array.dtype)
        dims = tuple(n if axis == array.rows else size for axis, size in enumerate(array.shape))
        stored = np.frombuffer(content, dtype.newbyteorder("<"), math.prod(dims), cursor).reshape(dims)
        cursor += array.bytes_of(n)
        # Right-aligned in a full window; the slots before the rows are zero.
        full = np.zeros(array.shape, dtype)
        rows = () if array.rows is None else (*(slice(None),) * array.rows, slice(array.shape[array.rows] - n, None))
        full[rows] = stored
        full.flags.writeable = False
        arrays[array.name] = full
    return arrays


def _bytes(array: npt.NDArray[np.generic], dtype: str | np.dtype[np.generic]) -> bytes:
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()
