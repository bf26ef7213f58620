"""A column of values, one for each item of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from service.artifact.array_types import FloatArray
from service.artifact.scorers.scorer_files import ScorerFileError, load_scorer, require, save_scorer

KIND = "item_values"


@dataclass(frozen=True, slots=True)
class ItemColumn:
    """Values [items] float32, all finite."""

    values: FloatArray

    def __post_init__(self) -> None:
        """Raises ValueError for an array that does not fit the description above."""
        require(self.values.dtype == np.float32 and self.values.ndim == 1, "values must be float32 [items]")
        require(bool(np.isfinite(self.values).all()), "values must be finite")

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.values)

    def save(self, path: Path) -> None:
        """Writes the column."""
        save_scorer(path, KIND, values=self.values)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Maps a file that `save` wrote.

        Raises:
            ScorerFileError: The file is anything else.
        """
        values = load_scorer(path, KIND, {"values": (np.float32, 1)})["values"]
        try:
            return cls(values)
        except ValueError as error:
            raise ScorerFileError(f"{path.name}: {error}") from error
