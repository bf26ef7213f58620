"""What is known of an item as a short sequence of attributes, for encoders that read it beside the item.

    category, top level first (or tags) · brand · price band · other attributes

Each is a row of an embedding table; row 0 pads, and stands for nothing. An item has as many places as the network has
slots: the first of its attributes that the training knew. A new item has them by its content as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from service.artifact.array_types import Array, IntArray
from service.artifact.items.columns import Texts

FORMAT = 1
# Names of the arrays in `items.npz`.
ROWS, NAMES = "item_attributes", "attribute_names"


def attribute_names(
    category: Iterable[str], brand: str | None, attributes: Iterable[str], price_band: str | None = None
) -> list[str]:
    """Returns the names of an item's attributes, in the order in which they are read."""
    names = [f"category:{value}" for value in category]
    names += [] if brand is None else [f"brand:{brand}"]
    names += [] if price_band is None else [f"price:{price_band}"]
    return list(dict.fromkeys([*names, *(f"attribute:{value}" for value in attributes)]))


@dataclass(frozen=True)
class AttributeVocabulary:
    """The attributes that a network knows.

    Attributes:
        names: The name of each row of the embedding table from 1 on.
        slots: How many attributes of an item are read.
    """

    names: tuple[str, ...]
    slots: int

    @property
    def n_rows(self) -> int:
        """Rows of the embedding table, with that of the padding."""
        return len(self.names) + 1

    @cached_property
    def _row(self) -> Mapping[str, int]:
        return {name: row for row, name in enumerate(self.names, start=1)}

    def table(self, items: Sequence[Iterable[str]]) -> IntArray:
        """Returns the rows [items, slots] of items by the names of their attributes, padded with 0.

        Unknown names are left out.
        """
        table: IntArray = np.zeros((len(items), self.slots), np.int64)
        for item, names in enumerate(items):
            known = [self._row[name] for name in names if name in self._row][: self.slots]
            table[item, : len(known)] = known
        return table

    def to_json(self) -> dict[str, Any]:
        """Returns the vocabulary as `run.json` keeps it."""
        return {"format": FORMAT, "slots": self.slots, "names": list(self.names)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads what `to_json` returned.

        Raises:
            ValueError: The entry has another format.
            LookupError, TypeError: It is damaged.
        """
        if value["format"] != FORMAT:
            raise ValueError(f"the attributes have format {value['format']!r}, this version reads {FORMAT}")
        return cls(tuple(str(name) for name in value["names"]), int(value["slots"]))

    def arrays(self, rows: IntArray) -> dict[str, Array]:
        """Returns the vocabulary and the rows [N + 2, slots] of the item table as arrays of `items.npz`."""
        return {ROWS: rows, **Texts.of(self.names).arrays(NAMES)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], slots: int) -> tuple[Self, IntArray]:
        """Reads what `arrays` returned.

        Raises:
            KeyError: They are missing.
            ValueError: They are damaged.
        """
        vocabulary, rows = cls(tuple(Texts.from_arrays(arrays, NAMES)), slots), arrays[ROWS]
        if rows.dtype != np.int64 or rows.ndim != 2 or rows.shape[1] != slots:
            raise ValueError(f"the attributes of the items are not int64 [rows, {slots}]")
        if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < vocabulary.n_rows:
            raise ValueError("an item has an attribute that has no name")
        return vocabulary, rows
