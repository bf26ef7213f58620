"""One facet of the catalogue, in columns: the values of every item, and the items of every value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import Array
from service.artifact.items.columns import TextIndex, Texts

Int32Array = npt.NDArray[np.int32]

_KEPT = 65_536  # items whose decoded values are cached


class Facet:
    """The values of every item and the items of every value, both in CSR form (int32).

    Attributes:
        names: The values.
        index: Place of each value in `names`.
        start: [N + 1] bounds of each item's values in `code`.
        code: [nnz] places in `names`.
        item_start: [values + 1] bounds of each value's items in `item`.
        item: [nnz] items.
    """

    def __init__(self, names: Texts, index: TextIndex, start: Array, code: Array, item_start: Array, item: Array):
        """Raises ValueError if the arrays do not fit each other."""
        if any(a.dtype != np.int32 for a in (start, code, item_start, item)) or len(code) != len(item):
            raise ValueError("a facet is four int32 arrays")
        if start[-1] != len(code) or item_start[-1] != len(item) or len(item_start) != len(names) + 1:
            raise ValueError("the parts of a facet do not fit each other")
        self.names, self.index = names, index
        self.start, self.code, self.item_start, self.item = start, code, item_start, item
        self._start, self._code = start.data, code.data
        self.values = lru_cache(_KEPT)(self._values)

    @classmethod
    def of(cls, rows: Sequence[Sequence[str]]) -> Facet:
        """Builds the facet from the values of each item."""
        number: dict[str, int] = {}
        flat = [number.setdefault(value, len(number)) for values in rows for value in values]
        code = np.array(flat, np.int32)
        lengths = np.fromiter((len(values) for values in rows), np.int64, len(rows))
        item = np.repeat(np.arange(len(rows), dtype=np.int32), lengths)[np.argsort(code, kind="stable")]
        names = Texts.of(list(number))
        counts = np.bincount(code, minlength=len(number))
        return cls(names, TextIndex.of(names), _bounds(lengths), code, _bounds(counts), item)

    def _values(self, item: int) -> tuple[str, ...]:
        """Returns an item's values, in the order in which they were given."""
        codes = self._code[self._start[item] : self._start[item + 1]]
        return tuple(self.names.text(code) for code in codes)

    def items(self, value: str) -> Int32Array:
        """Returns the items that have a value, ascending."""
        place = self.index.get(value)
        return self.item[:0] if place is None else self.item[self.item_start[place] : self.item_start[place + 1]]

    def any_of(self, items: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Returns [n] bool, whether each of the items [n] has a value whose place in `names` is one of `codes`."""
        first = self.start[items].astype(np.int64)
        count = self.start[items + 1] - first
        owner = np.repeat(np.arange(len(items)), count)
        place = np.arange(len(owner)) + np.repeat(first - (np.cumsum(count) - count), count)
        return np.bincount(owner[np.isin(self.code[place], codes)], minlength=len(items)) > 0

    def arrays(self, name: str) -> dict[str, Array]:
        """Returns the facet as arrays, whose names begin with `name`."""
        own = {"start": self.start, "code": self.code, "item_start": self.item_start, "item": self.item}
        columns = {f"{name}_{part}": array for part, array in own.items()}
        return columns | self.names.arrays(f"{name}_name") | self.index.arrays(f"{name}_name")

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], name: str) -> Facet:
        """Reads what `arrays` returned. Raises KeyError or ValueError for anything else."""
        names = Texts.from_arrays(arrays, f"{name}_name")
        index = TextIndex.from_arrays(names, arrays, f"{name}_name")
        return cls(names, index, *(arrays[f"{name}_{part}"] for part in ("start", "code", "item_start", "item")))


def _bounds(lengths: npt.NDArray[np.int64]) -> Int32Array:
    """Returns [n + 1] int32 bounds of consecutive runs of the given lengths. Raises ValueError beyond 2³¹."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if ends[-1] >= 2**31:
        raise ValueError("a column has more values than int32 can count")
    return ends.astype(np.int32)
