"""The items as the service shows and filters them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

FACETS = ("category", "brand", "attribute")


@dataclass(frozen=True)
class CatalogueItem:
    """One item; `category` holds its levels, top first, or its tags."""

    item_id: str
    title: str | None = None
    category: tuple[str, ...] = ()
    brand: str | None = None
    attributes: tuple[str, ...] = ()

    def facet(self, name: str) -> tuple[str, ...]:
        match name:
            case "category":
                return self.category
            case "brand":
                return () if self.brand is None else (self.brand,)
            case _:
                return self.attributes


@dataclass(frozen=True)
class Catalogue:
    """Items by index, and for every facet value the items that have it."""

    items: Sequence[CatalogueItem]
    item_ids: Sequence[str]
    facets: Mapping[str, Mapping[str, IntArray]] = field(repr=False)

    @classmethod
    def of(cls, items: Sequence[CatalogueItem]) -> Catalogue:
        facets: dict[str, dict[str, list[int]]] = {name: {} for name in FACETS}
        for index, item in enumerate(items):
            for name in FACETS:
                for value in item.facet(name):
                    facets[name].setdefault(value, []).append(index)
        arrays = {
            name: {value: np.array(rows, np.int64) for value, rows in values.items()} for name, values in facets.items()
        }
        return cls(items, [item.item_id for item in items], arrays)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def n_categories(self) -> int:
        return len(self.facets["category"])

    def title(self, item: int) -> str | None:
        return self.items[item].title

    def category(self, item: int) -> str | None:
        """The first category level or tag."""
        return next(iter(self.items[item].category), None)

    def allowed(self, filters: Mapping[str, Sequence[str]]) -> BoolArray | None:
        """[items] bool: items that have one of the values of every field; None where every item is allowed.

        A value no item has allows none. Raises ValueError for a field that is no facet.
        """
        mask: BoolArray | None = None
        for name, values in filters.items():
            if name not in self.facets:
                raise ValueError(f"unknown filter field {name!r}: items have {', '.join(FACETS)}")
            has = np.zeros(len(self.items), np.bool_)
            for value in values:
                has[self.facets[name].get(value, np.zeros(0, np.int64))] = True
            mask = has if mask is None else mask & has
        return mask

    def save(self, path: Path) -> None:
        """One JSON object a line, in index order."""
        path.write_bytes(b"".join(orjson.dumps(_to_json(item)) + b"\n" for item in self.items))

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Raises ValueError for a line that is not an item."""
        return cls.of(list(_read(path)))


def _to_json(item: CatalogueItem) -> dict[str, Any]:
    row: dict[str, Any] = {"item_id": item.item_id}
    if item.title is not None:
        row["title"] = item.title
    if item.category:
        row["category"] = item.category
    if item.brand is not None:
        row["brand"] = item.brand
    if item.attributes:
        row["attributes"] = item.attributes
    return row


def _read(path: Path) -> Iterable[CatalogueItem]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = orjson.loads(line)
                yield CatalogueItem(
                    row["item_id"],
                    row.get("title"),
                    tuple(row.get("category", ())),
                    row.get("brand"),
                    tuple(row.get("attributes", ())),
                )
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{path.name}, line {number} is not an item: {error}") from error
