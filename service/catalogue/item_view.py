"""Items as answers show them: the fields that a caller asks for, under the names that files and callers use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from service.artifact.catalogue_item import CatalogueItem
from service.common.times import iso_of

_SHOWN: Mapping[str, Callable[[CatalogueItem], Any]] = {
    "title": lambda item: item.title,
    "category": lambda item: list(item.category),
    "paths": lambda item: list(item.paths),
    "brand": lambda item: item.brand,
    "attributes": lambda item: list(item.attributes),
    "price": lambda item: item.price,
    "currency": lambda item: item.currency,
    "stock": lambda item: item.stock,
    "image": lambda item: item.image,
    "url": lambda item: item.url,
    "valid_from": lambda item: _iso(item.valid_from_ms),
    "valid_until": lambda item: _iso(item.valid_until_ms),
}


def shown(item: CatalogueItem, fields: Iterable[str]) -> dict[str, Any]:
    """Returns fields of an item as JSON has them: null for a text or number that it does not have.

    Args:
        item: The item.
        fields: Names of fields, as `service.schemas.item_filter.ItemField` lists them.
    """
    return {name: _SHOWN[name](item) for name in fields}


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso_of(ms)
