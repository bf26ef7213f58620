"""Places new items among those of the export: by what they are like, a vector, a text, a category, or a title.

The first of these that says something decides:

    like       the exported items that it names
    vector     the exported items whose stored vectors are nearest, where shops store vectors of exported items too
    text       the exported items whose titles are most like its title and text, if it has a text
    category   its most specific known category or path, which is the one with the fewest items
    title      the exported items whose titles are most like its own

An artefact holds titles and categories, but neither texts nor the vectors that a training read. So a text is compared
with titles, and vectors are compared among those that are stored over HTTP.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.artifact import Artifact
from service.artifact.items.catalogue_item import PATH
from service.catalogue.updates_file import NewItem
from service.catalogue.word_index import WordIndex
from service.engine.decode.delta_table import like_vector

By = Literal["like", "vector", "text", "category"]

# As many as stand in for cold items of an export.
_NEAREST = 5
_LEAST_COSINE = 0.1
_MEANS_MAX = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The place of a new item.

    Attributes:
        vector: [d] float32 its vector.
        nearest: The exported item that is most like it, by index.
        by: What decided.
    """

    vector: FloatArray
    nearest: int
    by: By


class Likeness:
    """Finds the places of new items. They are kept, because a mean takes a while. Safe for several threads."""

    def __init__(self, exported: Artifact) -> None:
        """Places items among those of an export.

        Args:
            exported: The artefact as exported.
        """
        self._exported = exported
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[object, Place]] = {}
        self._means: dict[str, tuple[FloatArray, int]] = {}
        self._titles: WordIndex | None = None
        self._vectors: dict[int, dict[int, FloatArray]] = {}
        self._stacked: dict[int, tuple[IntArray, FloatArray]] = {}

    def of(self, new: NewItem) -> tuple[FloatArray, int]:
        """Returns a new item's vector [d] float32, and the index of the exported item nearest to it.

        Raises:
            ValueError: Nothing known places it.
        """
        place = self.place(new)
        if place is None:
            raise ValueError(f"nothing known places the item {new.item_id}")
        return place.vector, place.nearest

    def place(self, new: NewItem) -> Place | None:
        """Returns a new item's place; None if nothing known places it.

        An item that has a place keeps it while nothing known gives it another.
        """
        with self._lock:
            key, kept = self._kept.get(new.item_id, (None, None))
            if kept is None or key != new.placed_by:
                kept = self._place(new) or kept
                if kept is not None:
                    self._kept[new.item_id] = new.placed_by, kept
            return kept

    def know_vector(self, index: int, vector: tuple[float, ...]) -> None:
        """Remembers the vector of an exported item, in place of the one before; an empty one is forgotten."""
        with self._lock:
            for length, known in self._vectors.items():
                if known.pop(index, None) is not None:
                    self._stacked.pop(length, None)
            if any(vector):
                unit = np.asarray(vector, np.float32)
                self._vectors.setdefault(len(vector), {})[index] = unit / np.linalg.norm(unit)
                self._stacked.pop(len(vector), None)

    def _place(self, new: NewItem) -> Place | None:
        index = self._exported.catalogue.index
        like = [index[item_id] for item_id in new.like if item_id in index]
        if like:
            return Place(like_vector(like, self._exported.item_table, named=True)[0], like[0], "like")
        return (
            self._among(self._by_vector(new.vector), "vector")
            or (self._among(self._by_text(f"{new.item.title or ''} {new.text}"), "text") if new.text else None)
            or self._by_category(new)
            or self._among(self._by_text(new.item.title or ""), "text")
        )

    def _among(self, items: IntArray, by: By) -> Place | None:
        """The place among some items, the nearest first."""
        if not len(items):
            return None
        return Place(like_vector(items, self._exported.item_table, named=True)[0], int(items[0]), by)

    def _by_vector(self, vector: tuple[float, ...]) -> IntArray:
        known = self._vectors.get(len(vector))
        if not known or not any(vector):
            return np.zeros(0, np.int64)
        if len(vector) not in self._stacked:
            self._stacked[len(vector)] = np.fromiter(known, np.int64, len(known)), np.stack(list(known.values()))
        items, vectors = self._stacked[len(vector)]
        asked = np.asarray(vector, np.float32)
        cosine = vectors @ (asked / np.linalg.norm(asked))
        best = np.lexsort((items, -cosine))[:_NEAREST]
        return items[best[cosine[best] > 0]]

    def _by_text(self, text: str) -> IntArray:
        if self._titles is None:
            catalogue = self._exported.catalogue
            self._titles = WordIndex.of(catalogue.title(item) for item in range(catalogue.n_exported))
        return self._titles.nearest(text, _NEAREST, _LEAST_COSINE)[0]

    def _by_category(self, new: NewItem) -> Place | None:
        catalogue, table = self._exported.catalogue, self._exported.item_table
        values = (*new.item.facet(PATH), *new.item.category)
        known = [(len(rows), value) for value in values if len(rows := catalogue.with_category(value))]
        if not known:
            return None
        value = min(known, key=lambda pair: pair[0])[1]
        if value not in self._means:
            if len(self._means) >= _MEANS_MAX:
                self._means.clear()
            self._means[value] = like_vector(catalogue.with_category(value), table, named=False)
        return Place(*self._means[value], "category")
