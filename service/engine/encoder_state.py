"""The encoder's state after a history: everything needed to add an event, or to decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import FloatArray
from service.artifact.graphs.state_layout import TIME_MS, StateLayout


@dataclass(frozen=True, slots=True)
class EncoderState:
    """The arrays of a state, by the names of its layout, and the hidden state.

    Attributes:
        arrays: The arrays; none for a model that encodes whole histories. Of an array by row, what lies before the
            last `n_valid` rows means nothing.
        n_valid: Number of events in the window, at most the layout's.
        h: [d] float32 hidden state after the last event.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    n_valid: int
    h: FloatArray

    @classmethod
    def of_hidden(cls, h: FloatArray) -> Self:
        """Makes the state of a model that encodes whole histories: no arrays."""
        return cls({}, 0, h)

    @property
    def extends(self) -> bool:
        """Whether events can be added to the state."""
        return bool(self.arrays)

    @property
    def last_ms(self) -> int:
        """Time of the newest event in epoch milliseconds; only of a state that extends and has an event."""
        return int(self.arrays[TIME_MS][-1])

    @property
    def nbytes(self) -> int:
        """Memory of the arrays and the hidden state."""
        return sum(array.nbytes for array in self.arrays.values()) + self.h.nbytes

    def fits(self, layout: StateLayout) -> bool:
        """Returns whether the state has this layout."""
        wanted = {array.name: (np.dtype(array.dtype), array.shape) for array in layout.arrays}
        found = {name: (array.dtype, array.shape) for name, array in self.arrays.items()}
        return found == wanted and self.h.shape == (layout.hidden,) and 0 <= self.n_valid <= layout.window
