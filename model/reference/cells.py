"""The cells of a catalogue in plain loops: which items are read for a query."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Mapping, Sequence

import torch

from service.artifact.array_types import FloatArray
from service.artifact.graphs.cells import Cells, exact_width
from service.artifact.trie import Trie


class ReferenceCells:
    """Reads the items of the best cells, as `export.graphs.cell_candidates` does."""

    def __init__(self, cells: Cells, trie: Trie) -> None:
        """Lists the items of every cell, in the order of their leaves."""
        self._cells = cells
        bounds = cells.first_leaf.tolist()
        self._items = [
            [int(trie.leaf_item[leaf]) for leaf in range(first, after)] for first, after in itertools.pairwise(bounds)
        ]
        self._leaf = {int(item): leaf for leaf, item in enumerate(trie.leaf_item)}

    def best(
        self,
        q: torch.Tensor,
        weight: float,
        bias: Mapping[int, float],
        filtered: Sequence[int],
        allowed: Container[int],
        n: int,
    ) -> list[int]:
        """Returns the best allowed items of those that are read, compared in few dimensions.

        Args:
            q: [d] query.
            weight: Weight of q · e.
            bias: What signals of items add to each item's score; 0 for other items.
            filtered: The items that the filter allows: those of the best cells are read, as many as fit.
            allowed: The items that may be returned.
            n: Number of candidates that join the beam's.
        """
        short, length = self._short(q), math.sqrt(sum(float(x) ** 2 for x in q))
        may = set(filtered)
        counts = [sum(item in may for item in items) for items in self._items]
        scores = [self._score(short, length, cell, weight, bias) for cell in range(len(self._items))]
        by_score = sorted((cell for cell, count in enumerate(counts) if count), key=lambda cell: -scores[cell])
        rows, open_cells = self._cells.rows, len(by_score)
        by_score = by_score[: max(1, min(open_cells, math.ceil(5 * rows * open_cells / (4 * max(1, sum(counts))))))]
        found = [item for cell in by_score for item in self._items[cell] if item in may][:rows]
        promised = {
            item: weight * self._product(short, self._cells.leaf_vectors[self._leaf[item]]) + bias.get(item, 0.0)
            for item in found
            if item in allowed
        }
        return sorted(promised, key=lambda item: -promised[item])[: exact_width(n)]

    def _short(self, q: torch.Tensor) -> list[float]:
        """Returns q in few dimensions."""
        basis = self._cells.query_basis.tolist()
        return [sum(float(x) * row[at] for x, row in zip(q, basis, strict=True)) for at in range(len(basis[0]))]

    def _product(self, short: list[float], vector: FloatArray) -> float:
        return float(sum(a * b for a, b in zip(short, vector.tolist(), strict=True)))

    def _score(self, short: list[float], length: float, cell: int, weight: float, bias: Mapping[int, float]) -> float:
        """Returns what a cell promises: the query by its centroid, for its spread, and for the bias of its items."""
        added = [bias.get(item, 0.0) for item in self._items[cell]]
        mean = sum(added) / len(added)
        by_vector = self._product(short, self._cells.vectors[cell]) + length * float(self._cells.spread[cell])
        return weight * by_vector + (mean + max(added)) / 2
