"""Cells of a catalogue: items whose paths begin alike, and what stands for all of them.

The first levels of the codes are a coarse quantiser. A cell is a node of the trie, or a part of one that has many
leaves, so that it is a range of leaves. What its items promise a query q is estimated as

    q · centroid + c · |q| · mean distance from the centroid

as in an inverted file (Jégou, Douze and Schmid, 2011), whose cells are read best first. The second term is for the best
items of a cell, which lie beyond its mean; how much it is worth differs by model, so the export measures c. Cells and
the items that are read are compared in fewer dimensions than the vectors have, and of these items the best in all
dimensions. The basis that changes the products of queries and items least is that of the largest principal components
of the items, after both have been stretched by the queries' second moment.

The file `cells.npz` holds what a device needs. Cells are computed anew where a trie changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.arrays import map_arrays, save_arrays
from service.artifact.trie import Trie

CELLS_FILE = "cells.npz"
FORMAT = 2
# Places of a cell's items fit into an int8.
ITEMS_MAX = 128
# The values of c that are tried, and the one where nothing was measured, which files of format 1 have. Then the
# dimensions in which cells and items are compared (docs/experiments.md, Candidates by cell).
SPREADS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
SPREAD = 0.2
DIMENSIONS = 32
# Items that are read for a list where nothing was measured.
ROWS = 2048
# Items that are compared in all dimensions, for each that joins a beam, and at least.
_EXACT, _LEAST_EXACT = 4, 256
# Leaves whose vectors are gathered at once.
_CHUNK = 2**17
# Part of the mean square that is added in every direction, so that no moment is singular.
_RIDGE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells of one trie and one item table.

    Attributes:
        level: Tokens that the paths of a cell's items share.
        rows: R, the most items that are read for a list.
        weight: c, what the distance of a cell's items counts.
        first_leaf: [C + 1] first leaf of each cell.
        query_basis: [d, r] float32; q in few dimensions is q · query_basis.
        item_basis: [d, r] float32; the same for items and centroids.
        vectors: [C, r] float32 centroids in few dimensions.
        leaf_vectors: [N, r] float32 items in few dimensions, by leaf.
        distance: [C] float32 mean distance of a cell's items from their centroid.
    """

    level: int
    rows: int
    weight: float
    first_leaf: IntArray
    query_basis: FloatArray
    item_basis: FloatArray
    vectors: FloatArray
    leaf_vectors: FloatArray
    distance: FloatArray

    def __len__(self) -> int:
        return len(self.distance)

    @property
    def spread(self) -> FloatArray:
        """[C] float32 what a cell promises a query of length 1 beyond its centroid."""
        added: FloatArray = self.distance * np.float32(self.weight)
        return added

    @classmethod
    def build(
        cls,
        trie: Trie,
        item_table: FloatArray,
        *,
        rows: int = ROWS,
        queries: FloatArray | None = None,
        level: int | None = None,
    ) -> Cells:
        """Builds the cells of a catalogue.

        Args:
            trie: Its trie.
            item_table: [≥ items, d] item vectors.
            rows: The most items that are read for a list.
            queries: [n, d] queries like those that will be asked; None: all directions matter alike.
            level: Tokens that the paths of a cell's items share; None: `level_of` the trie.
        """
        level = level_of(trie) if level is None else level
        query_basis, item_basis = _bases(_sample(trie, item_table), queries)
        measured = _measured(trie, item_table, cell_bounds(trie, level), item_basis)
        return cls(level=level, rows=rows, weight=SPREAD, query_basis=query_basis, item_basis=item_basis, **measured)

    def over(self, trie: Trie, item_table: FloatArray) -> Cells:
        """Returns the cells of a catalogue that has changed."""
        return replace(self, **_measured(trie, item_table, cell_bounds(trie, self.level), self.item_basis))

    def scores(self, queries: FloatArray) -> FloatArray:
        """Returns [n, C] what the cells promise queries [n, d]."""
        length = np.linalg.norm(queries, axis=1)
        estimate: FloatArray = queries @ self.query_basis @ self.vectors.T + length[:, None] * self.spread
        return estimate

    def of_leaf(self, leaf: IntArray) -> IntArray:
        """Returns the cell of each leaf."""
        cell: IntArray = np.searchsorted(self.first_leaf, leaf, side="right") - 1
        return cell

    def save(self, path: Path) -> None:
        """Writes `cells.npz`."""
        save_arrays(
            path, settings=np.array([FORMAT, self.level, self.rows], np.int64), weight=np.array(self.weight),
            first_leaf=self.first_leaf, query_basis=self.query_basis, item_basis=self.item_basis,
            vectors=self.vectors, leaf_vectors=self.leaf_vectors, distance=self.distance,
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Cells:
        """Maps a file that `save` wrote, or version 1 of it. Raises ValueError or KeyError for anything else."""
        arrays = map_arrays(path)
        version, level, rows = arrays.pop("settings").tolist()
        if version == 1:  # it had the distances times c, which was the same for all
            arrays |= {"weight": np.array(SPREAD), "distance": arrays.pop("spread") / np.float32(SPREAD)}
        elif version != FORMAT:
            raise ValueError(f"cells of format {version}; this version reads 1 and {FORMAT}: export the model again")
        cells = cls(level, rows, float(arrays.pop("weight")), **arrays)
        dimensions, n = cells.query_basis.shape[1], len(cells.first_leaf) - 1
        floats = (cells.query_basis, cells.item_basis, cells.vectors, cells.leaf_vectors, cells.distance)
        if (
            rows < 1
            or any(array.dtype != np.float32 for array in floats)
            or cells.first_leaf.dtype != np.int64
            or cells.item_basis.shape != cells.query_basis.shape
            or cells.vectors.shape != (n, dimensions)
            or cells.leaf_vectors.shape != (cells.first_leaf[-1], dimensions)
            or cells.distance.shape != (n,)
            or not 0 < np.diff(cells.first_leaf).min() <= np.diff(cells.first_leaf).max() <= ITEMS_MAX
        ):
            raise ValueError(f"{path.name} does not hold cells")
        return cells


def level_of(trie: Trie) -> int:
    """Returns the level of the cells: the deepest with no more than half as many nodes as there are items."""
    return max((level for level in range(1, trie.levels) if 2 * trie.n_nodes[level - 1] <= trie.n_items), default=0)


def cell_bounds(trie: Trie, level: int) -> IntArray:
    """Returns [C + 1] the first leaf of each cell: the nodes of a level, large ones cut into parts of one size."""
    first = trie.first_leaf[level]
    size = np.diff(first)
    parts = -(-size // ITEMS_MAX)
    node = np.repeat(np.arange(len(size)), parts)
    part = np.arange(len(node)) - (np.cumsum(parts) - parts)[node]
    bounds: IntArray = first[node] + size[node] * part // parts[node]
    return np.append(bounds, first[-1]).astype(np.int64)


def exact_width(joined: int) -> int:
    """Returns how many of the items read are compared in all dimensions, for so many that join the beam."""
    return max(_LEAST_EXACT, _EXACT * joined)


def _sample(trie: Trie, item_table: FloatArray) -> FloatArray:
    """Returns vectors of items, evenly spread over the leaves."""
    step = -(-trie.n_items // _CHUNK)
    vectors: FloatArray = item_table.take(trie.leaf_item[::step], axis=0)
    return vectors


def _measured(trie: Trie, item_table: FloatArray, first_leaf: IntArray, basis: FloatArray) -> dict[str, Any]:
    """Returns the arrays that follow from the items of the cells."""
    n = len(first_leaf) - 1
    vectors, distance = np.zeros((n, basis.shape[1]), np.float32), np.zeros(n, np.float32)
    leaf_vectors = np.zeros((trie.n_items, basis.shape[1]), np.float32)
    start = 0
    while start < n:
        end = max(start + 1, int(np.searchsorted(first_leaf, first_leaf[start] + _CHUNK, side="right")) - 1)
        leaf, at = first_leaf[start : end + 1], first_leaf[start:end] - first_leaf[start]
        size = np.diff(leaf)
        items = item_table.take(trie.leaf_item[leaf[0] : leaf[-1]], axis=0)
        leaf_vectors[leaf[0] : leaf[-1]] = items @ basis
        mean = np.add.reduceat(items, at, axis=0) / size[:, None].astype(np.float32)
        vectors[start:end] = mean @ basis
        items -= np.repeat(mean, size, axis=0)
        of_item = np.sqrt(np.einsum("nd,nd->n", items, items))
        distance[start:end] = np.add.reduceat(of_item, at) / size
        start = end
    return {"first_leaf": first_leaf, "vectors": vectors, "leaf_vectors": leaf_vectors, "distance": distance}


def _bases(items: FloatArray, queries: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Returns the bases [d, r] of queries and items: q · e ≈ (q · query_basis) · (e · item_basis), up to a constant.

    With the moment L Lᵀ of the queries, the mean square of q · δ is |Lᵀ δ|². So Lᵀ e is cut to its largest principal
    components U: q · e = (L⁻¹ q) · (Lᵀ e) ≈ (q · L⁻ᵀ U) · (e · L U).
    """
    d = items.shape[1]
    moment: Float64Array = np.eye(d)
    if queries is not None and len(queries):
        exact = queries.astype(np.float64)
        moment = exact.T @ exact / len(exact)
        moment += np.eye(d) * _RIDGE * (np.trace(moment) / d + 1e-12)
    low = np.linalg.cholesky(moment)
    centred = (items - items.mean(axis=0)).astype(np.float64) @ low
    _, axes = np.linalg.eigh(centred.T @ centred)
    chosen = axes[:, -min(d, DIMENSIONS) :]
    query_basis, item_basis = np.linalg.solve(low.T, chosen), low @ chosen
    return np.ascontiguousarray(query_basis, np.float32), np.ascontiguousarray(item_basis, np.float32)
