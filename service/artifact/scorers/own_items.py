"""The file of signals of a user's own items: parameters, and how often each item is taken again, if that counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from service.artifact.array_types import FloatArray
from service.artifact.scorers.scorer_files import ScorerFileError, load_scorer, require, save_scorer

KIND = "own_items"
_REPURCHASE = "repurchase"


@dataclass(frozen=True, slots=True, eq=False)
class OwnItems:
    """How a user's own items are scored: by how often, and how long ago counted in other own items.

    Attributes:
        n_items: Number of items in the catalogue.
        decay: Weight of an item relative to the one that was last seen after it, in (0, 1].
        repurchase: [n_items] float32 in (0, 1], how readily each item is taken again by who took it before; None where
            that does not count.
    """

    n_items: int
    decay: float
    repurchase: FloatArray | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for values that do not fit the description above."""
        require(self.n_items >= 0, "the number of items must not be negative")
        require(0 < self.decay <= 1, "decay must be in (0, 1]")
        if self.repurchase is not None:
            require(self.repurchase.shape == (self.n_items,), "there must be one repurchase rate for each item")
            require(bool(((self.repurchase > 0) & (self.repurchase <= 1)).all()), "repurchase rates must be in (0, 1]")

    def save(self, path: Path) -> None:
        """Writes the parameters."""
        rates = {} if self.repurchase is None else {_REPURCHASE: self.repurchase}
        save_scorer(path, KIND, n_items=np.int64(self.n_items), decay=np.float64(self.decay), **rates)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file that `save` wrote.

        Raises:
            ScorerFileError: The file is anything else.
        """
        needed = {"n_items": (np.int64, 0), "decay": (np.float64, 0)}
        arrays = load_scorer(path, KIND, needed, {_REPURCHASE: (np.float32, 1)})
        try:
            return cls(int(arrays["n_items"]), float(arrays["decay"]), arrays.get(_REPURCHASE))
        except ValueError as error:
            raise ScorerFileError(f"{path.name}: {error}") from error
