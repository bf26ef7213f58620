"""The file of the signal of a user's own items: only parameters, since the values are all in the history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from service.artifact.scorer_files import ScorerFileError, load_scorer, require, save_scorer

KIND = "own_items"


@dataclass(frozen=True, slots=True)
class OwnItems:
    """How a user's own items are scored: by how often, and how long ago counted in other own items.

    Attributes:
        n_items: Number of items in the catalogue.
        decay: Weight of an item relative to the one that was last seen after it, in (0, 1].
    """

    n_items: int
    decay: float

    def __post_init__(self) -> None:
        """Raises ValueError for values that do not fit the description above."""
        require(self.n_items >= 0, "the number of items must not be negative")
        require(0 < self.decay <= 1, "decay must be in (0, 1]")

    def save(self, path: Path) -> None:
        """Writes the parameters."""
        save_scorer(path, KIND, n_items=np.int64(self.n_items), decay=np.float64(self.decay))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file that `save` wrote.

        Raises:
            ScorerFileError: The file is anything else.
        """
        arrays = load_scorer(path, KIND, {"n_items": (np.int64, 0), "decay": (np.float64, 0)})
        try:
            return cls(int(arrays["n_items"]), float(arrays["decay"]))
        except ValueError as error:
            raise ScorerFileError(f"{path.name}: {error}") from error
