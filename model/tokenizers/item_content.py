"""Item content: what is known of an item apart from its events."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What is known of an item apart from its events.

    Attributes:
        category: Category path, top level first.
        brand: Brand, if known.
        attributes: Unordered attributes.
        text: Sentence vector of the item's text, and its given vector; empty if neither is used or the item has none.
    """

    category: tuple[str, ...] = ()
    brand: str | None = None
    attributes: tuple[str, ...] = ()
    text: tuple[float, ...] = ()

    def features(self) -> list[str]:
        """Returns the sorted names of the content features; each category level counts alone and as its path."""
        path = ["/".join(self.category[: depth + 1]) for depth in range(len(self.category))]
        names = {f"category:{name}" for name in (*self.category, *path)}
        names |= {f"attribute:{name}" for name in self.attributes}
        if self.brand is not None:
            names.add(f"brand:{self.brand}")
        return sorted(names)


def contents_of(
    dataset: Dataset, item_ids: list[str], texts: npt.NDArray[np.float32] | None = None
) -> list[ItemContent]:
    """Returns the content of every item of the catalogue.

    Tags have no order: the first one is the category, and all of them count as attributes.

    Args:
        dataset: The data set with the item table.
        item_ids: [items] the catalogue in index order.
        texts: [items, dim] sentence vectors and given vectors, zero for an item without.

    Returns:
        [items] contents in index order.
    """
    rows = {row["item_id"]: row for row in dataset.items.iter_rows(named=True)}
    path = dataset.category_kind == "path"
    contents = []
    for item_id in item_ids:
        row = rows.get(item_id, {})
        category, attributes = tuple(row.get("category") or ()), tuple(row.get("attributes") or ())
        contents.append(
            ItemContent(category, row.get("brand"), attributes)
            if path
            else ItemContent(category[:1], row.get("brand"), (*category, *attributes))
        )
    if texts is None:
        return contents
    return [
        replace(content, text=tuple(vector.tolist())) if vector.any() else content
        for content, vector in zip(contents, texts, strict=True)
    ]
