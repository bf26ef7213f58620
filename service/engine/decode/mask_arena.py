"""The masks of filters on the device: one place for each, in arrays that all runs share.

A new mask is written to its own place and nothing else is copied, whatever the number of masks. The arrays stay where
they are, so runs that read other places go on meanwhile, and nothing is bound anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import Array
from service.engine.decode.filters import Mask
from service.engine.decode.mask_parts import MaskPart
from service.engine.onnx_session import Values
from service.engine.placement import Placement


class MaskArena:
    """Implements `service.engine.decode.filters.MaskPlaces` on a device.

    Attributes:
        values: The inputs of the graphs, by name; the place of a mask is its row, or its block of rows.
    """

    def __init__(self, parts: Sequence[MaskPart], placement: Placement) -> None:
        """Describes the places; `open` makes them.

        Args:
            parts: What the graphs read of a mask.
            placement: Where the graphs run.
        """
        self._parts, self._placement = parts, placement
        self._host: dict[str, Array] = {}
        self.values: Values = {}

    @property
    def place_bytes(self) -> int:
        """Bytes of one place."""
        return sum(part.nbytes for part in self._parts)

    def open(self, places: int) -> None:
        """Makes the places, all of them empty."""
        # Pages of the host's memory that no mask was written to take no room.
        self._host = {part.name: np.zeros((places, *part.shape), part.dtype) for part in self._parts}
        self.values = {part.name: self._placement.put(self._shaped(part)) for part in self._parts}

    def write(self, masks: Sequence[Mask]) -> None:
        """Writes masks to their places."""
        for mask in masks:
            for part in self._parts:
                self._host[part.name][mask.place] = part.of(mask)
        for part in self._parts:
            self._placement.refresh(self.values[part.name], self._shaped(part))

    def _shaped(self, part: MaskPart) -> Array:
        """An input in the shape that the graphs read, without a copy."""
        host = self._host[part.name]
        return host.reshape(-1, *part.shape[1:]) if part.joined else host
