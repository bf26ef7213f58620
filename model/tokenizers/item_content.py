"""What is known of an item besides who used it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What is known of an item besides who used it. Order within `category` is the path's, top level first."""

    category: tuple[str, ...] = ()
    brand: str | None = None
    attributes: tuple[str, ...] = ()
    text: tuple[float, ...] = ()  # the sentence vector of its text, where texts are used

    def features(self) -> list[str]:
        """Names of the item's content features; a deeper category carries the path that leads to it."""
        path = ["/".join(self.category[: depth + 1]) for depth in range(len(self.category))]
        names = {f"category:{name}" for name in (*self.category, *path)}
        names |= {f"attribute:{name}" for name in self.attributes}
        if self.brand is not None:
            names.add(f"brand:{self.brand}")
        return sorted(names)


def contents_of(
    dataset: Dataset, item_ids: list[str], texts: npt.NDArray[np.float32] | None = None
) -> list[ItemContent]:
    """Content of every item of the catalogue, in index order. Tags have no order, so they count as attributes. `texts`
    [items, dim] are sentence vectors, zero for an item without a text."""
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
