"""What the states of an encoder consist of: named arrays, as the manifest of an artefact declares them.

Everything that carries states (encoder batches, blobs in Redis, caches, checkpoints) works from the layout alone and
knows no encoder. The export writes it under `state`; an artefact of before has the layout of GPT4Rec's own backbone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self, cast, get_args

import numpy as np

FORMAT = 1
DIGEST_BYTES = 8

ArrayDtype = Literal["float32", "float16", "int8", "int64"]
# The times of the newest events: every layout with arrays has this one, by row.
TIME_MS = "time_ms"


@dataclass(frozen=True, slots=True)
class StateArray:
    """One array of a state.

    Attributes:
        name: Its name, which the inputs and outputs of the encoder's graph carry.
        dtype: Type of its elements. int8 arrays have their scales in an array of their own.
        shape: Its shape in one state.
        rows: The axis with one row for each of the newest `window` events, right-aligned: only the rows of events are
            stored. None for an array of fixed size, which is stored whole.
    """

    name: str
    dtype: ArrayDtype
    shape: tuple[int, ...]
    rows: int | None = None

    def bytes_of(self, n_valid: int) -> int:
        """Returns the stored size with `n_valid` events in the window."""
        sizes = (n_valid if axis == self.rows else size for axis, size in enumerate(self.shape))
        return math.prod(sizes) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class StateLayout:
    """The arrays of an encoder's states. Encoders with different layouts cannot read each other's states.

    Attributes:
        hidden: Size of the hidden state.
        window: Number of newest events that arrays by row have rows for; 0 without arrays.
        arrays: The arrays, in the order of the graph; none if the model encodes whole histories.
        remembers_trimmed: Whether a state depends on events that the log may no longer keep, so that it cannot be
            rebuilt from the log alone.

    Raises:
        ValueError: The arrays do not fit together.
    """

    hidden: int
    window: int = 0
    arrays: tuple[StateArray, ...] = ()
    remembers_trimmed: bool = False

    def __post_init__(self) -> None:
        names = [array.name for array in self.arrays]
        if len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
            raise ValueError(f"a state has arrays with different names that are identifiers, got {names}")
        for array in self.arrays:
            if array.dtype not in get_args(ArrayDtype) or any(size < 0 for size in array.shape):
                raise ValueError(f"the array {array.name} has the type {array.dtype} and the shape {array.shape}")
            if array.rows is not None and not (
                0 <= array.rows < len(array.shape) and array.shape[array.rows] == self.window
            ):
                raise ValueError(f"the array {array.name} has no axis {array.rows} of {self.window} rows")
        if self.hidden < 1 or self.window < 0:
            raise ValueError(f"a hidden state of {self.hidden} numbers and a window of {self.window} events")
        if self.arrays and (self.window < 1 or StateArray(TIME_MS, "int64", (self.window,), 0) not in self.arrays):
            raise ValueError(f"a state needs the array {TIME_MS}: int64, by row, with at least one row")

    @property
    def extends(self) -> bool:
        """Whether events can be added to a state."""
        return bool(self.arrays)

    @cached_property
    def digest(self) -> bytes:
        """Identifies the layout in a stored state."""
        text = json.dumps(self.to_json(), sort_keys=True).encode()
        return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()

    def bytes_of(self, n_valid: int) -> int:
        """Returns the stored size of a state's arrays and its hidden state, with `n_valid` events in the window."""
        return sum(array.bytes_of(n_valid) for array in self.arrays) + 4 * self.hidden

    @property
    def bytes_max(self) -> int:
        """The largest stored size of arrays and hidden state."""
        return self.bytes_of(self.window)

    def to_json(self) -> dict[str, Any]:
        """Returns the layout as the manifest keeps it."""
        return {
            "format": FORMAT,
            "hidden": self.hidden,
            "window": self.window,
            "remembers_trimmed": self.remembers_trimmed,
            "arrays": [{"name": a.name, "dtype": a.dtype, "shape": list(a.shape), "rows": a.rows} for a in self.arrays],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads what `to_json` returned.

        Raises:
            ValueError: The entry has another format, or is damaged.
        """
        try:
            if value["format"] != FORMAT:
                raise ValueError(f"it has format {value['format']!r}, this service reads {FORMAT}")
            arrays = tuple(
                StateArray(
                    str(entry["name"]),
                    cast(ArrayDtype, entry["dtype"]),
                    tuple(int(size) for size in entry["shape"]),
                    None if entry["rows"] is None else int(entry["rows"]),
                )
                for entry in value["arrays"]
            )
            return cls(int(value["hidden"]), int(value["window"]), arrays, bool(value["remembers_trimmed"]))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"it is damaged: {error!r}") from error


def attention_layout(layers: int, window: int, d_head: int, hidden: int, dtype: str) -> StateLayout:
    """Returns the layout of GPT4Rec's own backbone: keys, values and times of the newest `window` events.

    Args:
        layers: Attention layers.
        window: Events whose keys and values are kept.
        d_head: Size of a key.
        hidden: Size of the hidden state.
        dtype: Type of keys and values: float16, float32 or int8.
    """
    arrays = [StateArray("kv", cast(ArrayDtype, dtype), (layers, 2, window, d_head), 2)]
    if dtype == "int8":
        arrays.append(StateArray("scale", "float32", (layers, 2, window), 2))
    return StateLayout(hidden, window, (*arrays, StateArray(TIME_MS, "int64", (window,), 0)))


def layout_of(manifest: Mapping[str, Any]) -> StateLayout:
    """Returns the layout of the states of an artefact.

    Raises:
        ValueError: The entry `state` of the manifest cannot be used.
    """
    network, entry = manifest["network"], manifest.get("state")
    if entry is not None:
        return StateLayout.from_json(entry)
    if not manifest["streaming"]:
        return StateLayout(int(network["d_model"]))
    return attention_layout(
        network["layers"], network["window"], network["d_head"], network["d_model"], network["state_dtype"]
    )
