"""The exported items in columns: arrays that are mapped from a file.

Columns of fields that no item has are left out of the file, and so are those of files that were written before the
field existed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from service.artifact.array_types import Array, BoolArray, Float64Array
from service.artifact.arrays import map_arrays, save_arrays
from service.artifact.items.catalogue_item import CURRENCY, FACETS, NUMBERS, PATH, TEXTS, CatalogueItem, longest
from service.artifact.items.columns import TextIndex, Texts
from service.artifact.items.facet import Facet

FORMAT_VERSION = 2
_FORMAT = "format_version"
_MORE_FACETS = (PATH, CURRENCY)


@dataclass(frozen=True, eq=False)
class Columns:
    """The exported items.

    Attributes:
        ids: Their ids.
        index: Index of each item by its id.
        titles: Their titles; "" for none.
        has_title: [N] whether each has a title.
        facets: `FACETS`, and `PATH` and `CURRENCY`, where an item has any, by name.
        numbers: [N] float64 of each of `NUMBERS` that an item has; NaN for an item without.
        texts: Each of `TEXTS` that an item has; "" for an item without.
    """

    ids: Texts
    index: TextIndex
    titles: Texts
    has_title: BoolArray
    facets: Mapping[str, Facet]
    numbers: Mapping[str, Float64Array]
    texts: Mapping[str, Texts]

    @classmethod
    def of(cls, items: Sequence[CatalogueItem]) -> Self:
        """Builds the columns of items in index order. Ids must be unique."""
        ids = Texts.of([item.item_id for item in items])
        titles = Texts.of([item.title or "" for item in items])
        has_title = np.fromiter((item.title is not None for item in items), np.bool_, len(items))
        facets = {name: Facet.of([item.facet(name) for item in items]) for name in FACETS}
        more = {name: [item.facet(name) for item in items] for name in _MORE_FACETS}
        facets |= {name: Facet.of(rows) for name, rows in more.items() if any(rows)}
        numbers = {name: numbers_of(items, name) for name in NUMBERS}
        texts = {name: [getattr(item, name) or "" for item in items] for name in TEXTS}
        return cls(
            ids,
            TextIndex.of(ids),
            titles,
            has_title,
            facets,
            {name: column for name, column in numbers.items() if not np.isnan(column).all()},
            {name: Texts.of(rows) for name, rows in texts.items() if any(rows)},
        )

    def __len__(self) -> int:
        return len(self.ids)

    def item(self, index: int) -> CatalogueItem:
        """Returns one item."""
        brand, currency = next(iter(self.values("brand", index)), None), next(iter(self.values(CURRENCY, index)), None)
        stock, first, end = (self._whole(name, index) for name in NUMBERS[1:])
        return CatalogueItem(
            self.ids.text(index), self.title(index), self.values("category", index), brand,
            self.values("attribute", index), longest(self.values(PATH, index)), self._number("price", index), currency,
            stock, self._text("image", index), self._text("url", index), first, end,
        )  # fmt: skip

    def title(self, index: int) -> str | None:
        """Returns an item's title, None if it has none."""
        return self.titles.text(index) if self.has_title[index] else None

    def values(self, name: str, index: int) -> tuple[str, ...]:
        """Returns an item's values of a facet."""
        facet = self.facets.get(name)
        return () if facet is None else facet.values(index)

    def _number(self, name: str, index: int) -> float | None:
        column = self.numbers.get(name)
        return None if column is None or np.isnan(column[index]) else float(column[index])

    def _whole(self, name: str, index: int) -> int | None:
        value = self._number(name, index)
        return None if value is None else int(value)

    def _text(self, name: str, index: int) -> str | None:
        texts = self.texts.get(name)
        return None if texts is None else texts.text(index) or None

    def save(self, path: Path) -> None:
        """Writes the columns."""
        arrays: dict[str, Any] = {_FORMAT: np.array(FORMAT_VERSION), "has_title": self.has_title}
        arrays |= {**self.titles.arrays("title"), **self.ids.arrays("id"), **self.index.arrays("id")}
        for name, facet in self.facets.items():
            arrays |= facet.arrays(name)
        for name, texts in self.texts.items():
            arrays |= texts.arrays(name)
        save_arrays(path, **arrays, **self.numbers)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Maps a file that `save` wrote. Raises ValueError or KeyError for anything else."""
        arrays = map_arrays(path)
        version = int(arrays.get(_FORMAT, np.array(1)))
        if version not in (1, FORMAT_VERSION):
            raise ValueError(f"{path.name} is of format version {version}, this service reads 1 to {FORMAT_VERSION}")
        ids, titles = Texts.from_arrays(arrays, "id"), Texts.from_arrays(arrays, "title")
        index = TextIndex.from_arrays(ids, arrays, "id")
        names = (*FACETS, *(name for name in _MORE_FACETS if f"{name}_start" in arrays))
        facets = {name: Facet.from_arrays(arrays, name) for name in names}
        texts = {name: Texts.from_arrays(arrays, name) for name in TEXTS if f"{name}_bytes" in arrays}
        numbers = {name: _float64(arrays[name]) for name in NUMBERS if name in arrays}
        lengths = {len(titles), len(arrays["has_title"]), *map(len, texts.values()), *map(len, numbers.values())}
        if lengths | {len(facet.start) - 1 for facet in facets.values()} != {len(ids)}:
            raise ValueError(f"the columns of {path.name} differ in length")
        return cls(ids, index, titles, arrays["has_title"].astype(np.bool_), facets, numbers, texts)


def numbers_of(items: Sequence[CatalogueItem], name: str) -> Float64Array:
    """Returns [items] float64, one of `NUMBERS` of each item; NaN for an item without."""
    values = (getattr(item, name) for item in items)
    return np.fromiter((np.nan if value is None else value for value in values), np.float64, len(items))


def _float64(column: Array) -> Float64Array:
    if column.dtype != np.float64 or column.ndim != 1:
        raise ValueError("a column of numbers is not float64 [items]")
    return column
