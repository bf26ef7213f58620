"""Semantic ids: balanced residual k-means over collaborative and content vectors of items.

The idea is TIGER's (Rajput et al., 2023), with k-means instead of a residual-quantised autoencoder: level l quantises
the residual of the levels before it, and a last token makes the path unique.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from model.tokenizers.item_content import ItemContent
from model.tokenizers.item_vectors import VECTOR_DIM, ContentSpace, collaborative_vectors
from model.tokenizers.tokenizer import MAX_BRANCHING, Tokenizer, unique_last_tokens
from service.artifact.array_types import FloatArray, IntArray

MINI_BATCH_FROM = 20_000
NEAREST = 16  # nearest codes that are tried for an item before any code with room


def nearest_codes(x: FloatArray, codebook: FloatArray, n: int) -> tuple[IntArray, FloatArray]:
    """Finds the `n` nearest codes of every row, in chunks of rows.

    Args:
        x: [rows, dim] vectors.
        codebook: [codes, dim] vectors of the codes.
        n: The number of codes to return; at most all of them.

    Returns:
        [rows, n] codes, nearest first, and their squared distances [rows, n].
    """
    n = min(n, len(codebook))
    code, distance = np.empty((len(x), n), np.int64), np.empty((len(x), n), np.float32)
    norms = (codebook**2).sum(axis=1)
    for start in range(0, len(x), 65_536):
        rows = x[start : start + 65_536]
        squared = (rows**2).sum(axis=1, keepdims=True) - 2 * rows @ codebook.T + norms
        best = np.argsort(squared, axis=1, kind="stable")[:, :n]
        code[start : start + len(rows)] = best
        distance[start : start + len(rows)] = np.take_along_axis(squared, best, axis=1)
    return code, distance


def balanced_assignment(
    code: IntArray, distance: FloatArray, parent: IntArray, capacity: IntArray, n_codes: int
) -> IntArray:
    """Gives every row one of its codes, so that no (parent, code) cell exceeds its capacity.

    Rows propose to their nearest cell with room, and a cell accepts its nearest proposers. A row that runs out of
    choices takes the emptiest cell of its parent, even beyond the capacity.

    Args:
        code: [rows, choices] candidate codes, nearest first.
        distance: [rows, choices] squared distances to them.
        parent: [rows] cell of the levels before.
        capacity: [parents] the most rows in each cell under a parent.
        n_codes: Number of codes of the level.

    Returns:
        [rows] assigned codes.
    """
    n, choices = code.shape
    assigned = np.full(n, -1, np.int64)
    used = np.zeros((int(parent.max()) + 1, n_codes), np.int64)
    for choice in range(choices):
        rows = np.flatnonzero(assigned < 0)
        if not len(rows):
            return assigned
        cell = parent[rows] * n_codes + code[rows, choice]
        order = np.lexsort((distance[rows, choice], cell))
        rows, cell = rows[order], cell[order]
        first = np.searchsorted(cell, cell)
        room = capacity[parent[rows]] - used.reshape(-1)[cell]
        taken = (np.arange(len(rows)) - first) < room
        assigned[rows[taken]] = code[rows[taken], choice]
        np.add.at(used.reshape(-1), cell[taken], 1)
    for row in np.flatnonzero(assigned < 0):
        assigned[row] = int(used[parent[row]].argmin())
        used[parent[row], assigned[row]] += 1
    return assigned


def default_code_size(n_items: int, levels: int) -> int:
    """Returns the power of two nearest to n_items^(1/levels), between 8 and 256."""
    power = round(np.log2(max(n_items, 2)) / max(levels, 1))
    return int(min(MAX_BRANCHING, max(8, 2**power)))


class SemanticTokenizer(Tokenizer):
    """Residual k-means codes, followed by last tokens that make the path unique.

    Args:
        codes: [items, levels] paths of the catalogue.
        code_sizes: [levels] number of tokens of each level.
        codebooks: The codebook [codes, dim] of each k-means level.
        content: Maps an item's content to vectors, for items that were not fitted.
    """

    kind = "semantic"

    def __init__(
        self, codes: IntArray, code_sizes: Sequence[int], codebooks: list[FloatArray], content: ContentSpace
    ) -> None:
        super().__init__(codes, code_sizes)
        self.codebooks = codebooks
        self.content = content

    @classmethod
    def fit(
        cls,
        contents: Sequence[ItemContent],
        item: IntArray,
        offsets: IntArray,
        *,
        code_levels: int = 2,
        code_size: int | None = None,
        content_weight: float = 0.5,
        seed: int = 0,
    ) -> SemanticTokenizer:
        """Fits codes on the training events and the contents of the items.

        Args:
            contents: [items] contents in index order.
            item: [events] item indices, grouped by user, oldest first.
            offsets: [users + 1] user `u` owns `item[offsets[u]:offsets[u + 1]]`.
            code_levels: Number of k-means levels.
            code_size: Codes of each level, by default chosen from the number of items.
            content_weight: Weight of the content vectors beside the collaborative ones.
            seed: Seed of the factorisations and of k-means.
        """
        n = len(contents)
        collaborative = collaborative_vectors(item, offsets, n, VECTOR_DIM, seed)
        seen = np.bincount(item, minlength=n) > 0
        space = ContentSpace.fit(contents, collaborative, seen, seed)
        by_content = space.vectors(contents)
        collaborative[~seen] = by_content[~seen] @ space.to_collaborative
        residual = np.concatenate([collaborative, content_weight * by_content], axis=1)
        size = min(code_size or default_code_size(n, code_levels), n)
        codebooks, codes = [], np.zeros((n, 0), np.int64)
        for _ in range(code_levels):
            codebook = _codebook(residual, size, seed)
            column = _level(residual, codebook, codes)
            codes = np.concatenate([codes, column[:, None]], axis=1)
            residual = residual - codebook[column]
            codebooks.append(codebook)
        # Above 0, so that the content of an unseen item still places it through the map to collaborative vectors.
        weight = np.float32(max(content_weight, 1e-6))
        text = None if space.text is None else space.text * weight
        space = ContentSpace(space.features, space.projection * weight, space.to_collaborative / weight, text)
        last = unique_last_tokens(codes)
        sizes = [size] * code_levels + [_last_size(last)] + [MAX_BRANCHING] * (last.shape[1] - 1)
        return cls(np.concatenate([codes, last], axis=1), sizes, codebooks, space)

    def prefix(self, content: ItemContent) -> list[list[int]]:
        """Returns the 4 nearest codes of each k-means level, following the nearest one to the next level."""
        by_content = self.content.vectors([content])
        residual = np.concatenate([by_content @ self.content.to_collaborative, by_content], axis=1)
        levels = []
        for codebook in self.codebooks:
            code, _ = nearest_codes(residual, codebook, 4)
            levels.append([int(c) for c in code[0]])
            residual = residual - codebook[code[:, 0]]
        return levels + self.free_levels(len(levels))

    def _meta(self) -> dict[str, Any]:
        return {"features": self.content.features}

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        books = {f"codebook_{level}": book for level, book in enumerate(self.codebooks)}
        return books | {
            "projection": self.content.projection,
            "to_collaborative": self.content.to_collaborative,
            **({} if self.content.text is None else {"text": self.content.text}),
        }

    @classmethod
    def from_parts(
        cls, codes: IntArray, sizes: Sequence[int], meta: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]
    ) -> SemanticTokenizer:
        """Rebuilds the tokenizer from the metadata and arrays that `save` wrote."""
        books = [arrays[f"codebook_{i}"] for i in range(sum(name.startswith("codebook_") for name in arrays))]
        content = ContentSpace(
            tuple(meta["features"]), arrays["projection"], arrays["to_collaborative"], arrays.get("text")
        )
        return cls(codes, sizes, books, content)


def _codebook(residual: FloatArray, size: int, seed: int) -> FloatArray:
    kind = MiniBatchKMeans if len(residual) > MINI_BATCH_FROM else KMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than codes leave some codes empty
        fitted = kind(n_clusters=size, n_init=1, max_iter=50, random_state=seed).fit(residual)
    return np.ascontiguousarray(fitted.cluster_centers_, dtype=np.float32)


def _level(residual: FloatArray, codebook: FloatArray, prefix: IntArray) -> IntArray:
    """[rows] balanced codes of one level, under the cells [rows, levels] of the levels before it."""
    if prefix.shape[1]:
        _, parent = np.unique(prefix, axis=0, return_inverse=True)
        parent = parent.reshape(-1)
        floor = 8
    else:
        parent, floor = np.zeros(len(residual), np.int64), 1
    members = np.bincount(parent)
    capacity = np.maximum(floor, np.ceil(2.0 * members / len(codebook))).astype(np.int64)
    code, distance = nearest_codes(residual, codebook, NEAREST)
    return balanced_assignment(code, distance, parent, capacity, len(codebook))


def _last_size(last: IntArray) -> int:
    """Returns twice the last tokens in use, so that new items find a free path near similar items."""
    return int(min(MAX_BRANCHING, max(8, 2 * (last[:, 0].max() + 1))))
