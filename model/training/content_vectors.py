"""Vectors that say what items are: sentence vectors of their texts, and those that came with the data set.

Both have length 1, or are zeros where an item has none. Side by side they are compared as the mean of their cosines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.data.dataset import Dataset
from model.errors import RunError
from model.texts.sentence_vectors import DIM, item_text_vectors
from model.training.config import TrainConfig
from service.artifact.array_types import FloatArray


@dataclass(frozen=True, eq=False)
class ContentVectors:
    """The vectors that a training uses.

    Attributes:
        texts: [items, DIM] sentence vectors; None where texts are not used.
        given: [items, dim] vectors that came with the data set; None where they are not used.
        in_items: [items, content] what is mixed into the item embeddings; None if nothing is.
    """

    texts: FloatArray | None = None
    given: FloatArray | None = None
    in_items: FloatArray | None = None

    @property
    def all(self) -> FloatArray | None:
        """[items, d] everything that is used, side by side; None if nothing is."""
        return _beside([self.texts, self.given])


def content_vectors(config: TrainConfig, dataset: Dataset, item_ids: list[str], data: Path) -> ContentVectors:
    """Returns the vectors that a configuration asks for.

    Args:
        config: Says which are used, and for what.
        dataset: The data set.
        item_ids: [items] the items, in any order.
        data: Folder of the data set, which keeps sentence vectors.

    Raises:
        TextError: The sentence encoder is not installed, or no item has a text.
        RunError: Vectors are asked for, and the data set has none.
    """
    texts = None if config.text == "none" else item_text_vectors(dataset, item_ids, data)
    given = None
    if config.vectors != "none":
        if dataset.vectors is None:
            raise RunError(
                f"{dataset.name} came without vectors of items",
                where=str(data),
                fix="import it with --vectors FILE, or train with --set vectors=none",
            )
        given = dataset.vectors.of(item_ids)
    mixed = [texts if config.text == "items" else None, given if config.vectors == "items" else None]
    return ContentVectors(texts, given, _beside(mixed))


def content_dim(config: TrainConfig, dataset: Dataset) -> int:
    """Returns the dimensions of `ContentVectors.in_items`; 0 if nothing is mixed into the item embeddings."""
    of_vectors = dataset.vectors.dim if config.vectors == "items" and dataset.vectors is not None else 0
    return (DIM if config.text == "items" else 0) + of_vectors


def _beside(parts: list[FloatArray | None]) -> FloatArray | None:
    used = [part for part in parts if part is not None]
    if len(used) < 2:
        return used[0] if used else None
    both: FloatArray = np.concatenate(used, axis=1)
    return both
