"""The hashes of a catalogue's items, from which the noise of sampled lists follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.graphs.noise import id_hashes
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.columns import Texts


@dataclass(frozen=True, slots=True, eq=False)
class ItemNoise:
    """Hashes of item ids by catalogue index. Never changed, only replaced.

    Attributes:
        exported: [n] hashes of the exported items.
        late: [m] hashes of the items that came after the export.
        first: Index of the first of these.
    """

    exported: IntArray
    late: IntArray
    first: int

    @classmethod
    def of(cls, catalogue: Catalogue) -> ItemNoise:
        """Returns the hashes of a catalogue."""
        return cls(id_hashes(catalogue.columns.ids), _late(catalogue), catalogue.first_new)

    def over(self, catalogue: Catalogue) -> ItemNoise:
        """Returns the hashes of the same exported items and other late ones."""
        return ItemNoise(self.exported, _late(catalogue), catalogue.first_new)

    def hash(self, item: int) -> int:
        """Returns the hash of one item; 0 for an index that is no item."""
        if item < len(self.exported):
            return int(self.exported[item])
        late = item - self.first
        return int(self.late[late]) if 0 <= late < len(self.late) else 0

    def hashes(self, items: IntArray) -> IntArray:
        """Returns the hashes of items, in their order."""
        return np.fromiter(map(self.hash, items.tolist()), np.int64, len(items))

    def rows(self, rows: int) -> IntArray:
        """Returns the hashes of the first `rows` indices; 0 for an index that is no item."""
        hashes = np.zeros(rows, np.int64)
        known = min(rows, len(self.exported))
        hashes[:known] = self.exported[:known]
        late = self.late[: max(0, rows - self.first)]
        hashes[self.first : self.first + len(late)] = late
        return hashes


def _late(catalogue: Catalogue) -> IntArray:
    return id_hashes(Texts.of([item.item_id for item in catalogue.more]))
