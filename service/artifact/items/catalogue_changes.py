"""A catalogue after some of its items have changed: what `Catalogue.updated` makes, but only these items are looked at.

Columns of numbers are copied as a whole, which takes milliseconds for a million items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from service.artifact.array_types import Float64Array, IntArray
from service.artifact.items.catalogue import Catalogue, ExtendedIndex, listed_at
from service.artifact.items.catalogue_columns import numbers_of
from service.artifact.items.catalogue_item import NUMBERS, CatalogueItem
from service.artifact.items.filtered_fields import FilteredFields


def following(
    before: Catalogue,
    items: Mapping[int, CatalogueItem],
    out_of_stock: IntArray,
    *,
    now_ms: float | None = None,
) -> Catalogue:
    """Returns the catalogue after some items have changed.

    Args:
        before: The catalogue before.
        items: Items as they are now, by index; new ones follow the present ones without a gap.
        out_of_stock: [m] indices of all items that are not listed, whatever their fields say.
        now_ms: As for `Catalogue.updated`.
    """
    first = before.first_new
    size = first + len(before.more)
    changes = [(index, before.item(index) if index < size else None, item) for index, item in sorted(items.items())]
    more, changed = list(before.more), dict(before.changed)
    for index, _, item in changes:
        if index >= first:
            more[index - first : index - first + 1] = [item]
        elif item == before.columns.item(index):
            changed.pop(index, None)
        else:
            changed[index] = item
    rows = first + len(more) if more else before.n_exported
    facets = {name: facet.following(name, changes) for name, facet in before.facets.items()}
    numbers = _numbers(before, items, rows)
    parts: dict[str, Any] = {
        "more": tuple(more),
        "changed": changed,
        "index": _index(before, [item for _, old, item in changes if old is None]),
        "facets": facets,
        "numbers": numbers,
        "filtered": FilteredFields.of(facets, numbers, rows),
        "in_stock": None,
    }
    after = _with(before, parts)
    listed = listed_at(after, now_ms)
    listed[out_of_stock] = False
    if listed.all():
        return after
    listed[before.n_exported : first] = False
    return _with(after, {"in_stock": listed})


def _with(catalogue: Catalogue, parts: Mapping[str, Any]) -> Catalogue:
    """A copy with other parts. The constructor would make all of them anew."""
    other = copy(catalogue)
    for name, part in parts.items():
        object.__setattr__(other, name, part)
    return other


def _index(before: Catalogue, new: Sequence[CatalogueItem]) -> Mapping[str, int]:
    if not new:
        return before.index
    late = dict(before.index.late) if isinstance(before.index, ExtendedIndex) else {}
    first = before.first_new + len(late)
    late.update({item.item_id: index for index, item in enumerate(new, start=first)})
    return ExtendedIndex(before.columns.index, late)


def _numbers(before: Catalogue, items: Mapping[int, CatalogueItem], rows: int) -> Mapping[str, Float64Array]:
    """Columns in which no item differs are those of before, unless they have become longer."""
    places, numbers = np.fromiter(items, np.int64, len(items)), {}
    for name in NUMBERS:
        values, column = numbers_of(list(items.values()), name), before.numbers.get(name)
        if column is None:
            if np.isnan(values).all():
                continue
            column = np.full(rows, np.nan)
        elif len(column) < rows:
            column = np.concatenate([column, np.full(rows - len(column), np.nan)])
        if not np.array_equal(column[places], values, equal_nan=True):
            column = column.copy()
            column[places] = values
        numbers[name] = column
    return numbers
