"""Items as answers show them: the fields that a caller asks for, under the names that files and callers use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.items.catalogue_item import CatalogueItem
from service.common.times import iso_of
from service.engine.interface import CatalogueView

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


def ranked_items(
    catalogue: CatalogueView,
    items: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    fields: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Returns a list as responses have it, best first.

    Args:
        catalogue: The items.
        items: [n] catalogue indices, best first.
        scores: [n] their scores.
        fields: What is shown of each item beside its id, rank and score; None for the title.
    """
    ids, of, title = catalogue.item_ids, catalogue.items, catalogue.title
    ranked = enumerate(zip(items.tolist(), scores.tolist(), strict=True), start=1)
    return [
        {"item_id": ids[item], "rank": rank, "score": score}
        | ({"title": title(item)} if fields is None else shown(of[item], fields))
        for rank, (item, score) in ranked
    ]


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso_of(ms)
