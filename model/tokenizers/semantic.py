"""Semantic ids: balanced residual k-means over collaborative and content vectors of items.

The idea is TIGER's (Rajput et al., 2023) with k-means in the place of its residual-quantised autoencoder: level l
quantises what the levels before left over, and a last token makes the path unique.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning

from model.tokenizers.item_content import ItemContent
from model.tokenizers.tokenizer import MAX_BRANCHING, Tokenizer, unique_last_tokens
from service.artifact.array_types import FloatArray, IntArray

CO_OCCURRENCE_WINDOW = 10
VECTOR_DIM = 48
MINI_BATCH_FROM = 20_000
NEAREST = 16  # choices an item has before any code with room will do


def co_occurrence(item: IntArray, offsets: IntArray, n_items: int) -> sparse.csr_matrix:
    """Symmetric [n_items, n_items] counts of pairs at most `CO_OCCURRENCE_WINDOW` apart, weighted 1/distance."""
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    total = sparse.csr_matrix((n_items, n_items), dtype=np.float32)
    for distance in range(1, CO_OCCURRENCE_WINDOW + 1):
        same = user[distance:] == user[:-distance]
        left, right = item[:-distance][same], item[distance:][same]
        weight = np.full(len(left), 1.0 / distance, np.float32)
        total = total + sparse.csr_matrix((weight, (left, right)), shape=(n_items, n_items))
    return (total + total.T).tocsr()


def positive_pmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """max(0, log p(a, b) / (p(a) p(b))): Levy and Goldberg (2014) factorise it in the place of word2vec."""
    coo = counts.tocoo()
    total = coo.data.sum()
    margin = np.asarray(counts.sum(axis=1)).reshape(-1)
    value = np.log(np.maximum(coo.data * total / (margin[coo.row] * margin[coo.col]), 1e-12))
    keep = value > 0
    return sparse.csr_matrix((value[keep], (coo.row[keep], coo.col[keep])), shape=counts.shape)


def factorise(matrix: sparse.csr_matrix, dim: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Truncated SVD → rows [n, dim] of unit mean length, and the projection [features, dim] that makes them. Both are
    zero where there is nothing to factorise: no counts, or a single row or column."""
    if matrix.nnz == 0 or min(matrix.shape) < 2:
        return np.zeros((matrix.shape[0], 1), np.float32), np.zeros((matrix.shape[1], 1), np.float32)
    dim = max(1, min(dim, min(matrix.shape) - 1))
    svd = TruncatedSVD(n_components=dim, random_state=seed)
    with np.errstate(divide="ignore", invalid="ignore"):  # its share of the variance, where all rows are the same
        rows = svd.fit_transform(matrix)
    scale = max(float(np.linalg.norm(rows, axis=1).mean()), 1e-12)
    return (rows / scale).astype(np.float32), (svd.components_.T / scale).astype(np.float32)


def collaborative_vectors(item: IntArray, offsets: IntArray, n_items: int, dim: int, seed: int) -> FloatArray:
    """[n_items, ≤ dim] item vectors of unit mean length from who is used near whom; zero for unseen items."""
    vectors, _ = factorise(positive_pmi(co_occurrence(item, offsets, n_items)), dim, seed)
    return vectors


@dataclass(frozen=True)
class ContentSpace:
    """Content features → vectors: an idf-weighted projection, and a ridge map onto the collaborative vectors."""

    features: tuple[str, ...]
    projection: FloatArray  # [features, content dim]
    to_collaborative: FloatArray  # [content dim, collaborative dim]
    text: FloatArray | None = None  # [text dim, dims of the text], behind those of the features

    def vectors(self, contents: Sequence[ItemContent]) -> FloatArray:
        """[n, content dim]; an item without known features is the zero vector."""
        index = {name: i for i, name in enumerate(self.features)}
        rows = np.stack(
            [self.projection[[index[f] for f in content.features() if f in index]].sum(axis=0) for content in contents]
        ).astype(np.float32)
        return rows if self.text is None else np.concatenate([rows, _texts(contents, len(self.text)) @ self.text], 1)

    @classmethod
    def fit(
        cls,
        contents: Sequence[ItemContent],
        collaborative: FloatArray,
        seen: npt.NDArray[np.bool_],
        seed: int,
    ) -> ContentSpace:
        names = sorted({name for content in contents for name in content.features()})
        with_text = max((len(content.text) for content in contents), default=0)
        if len(names) < 2 and not with_text:
            zero = np.zeros((0, 1), np.float32)
            return cls((), zero, np.zeros((1, collaborative.shape[1]), np.float32))
        rows, projection, text = *_by_features(contents, names, seed), None
        if with_text:
            by_text, text = factorise(sparse.csr_matrix(_texts(contents, with_text)), VECTOR_DIM, seed)
            rows = np.concatenate([rows, by_text], axis=1)
        gram = rows[seen].T @ rows[seen] + np.eye(rows.shape[1], dtype=np.float32)
        ridge = np.linalg.solve(gram, rows[seen].T @ collaborative[seen])
        return cls(tuple(names), projection, ridge.astype(np.float32), text)


def _by_features(contents: Sequence[ItemContent], names: Sequence[str], seed: int) -> tuple[FloatArray, FloatArray]:
    """[n, dim] vectors by features weighed by how rare they are, and the [features, dim] that makes them; without two
    features there is nothing to tell items apart by, and no dimension."""
    if len(names) < 2:
        return np.zeros((len(contents), 0), np.float32), np.zeros((len(names), 0), np.float32)
    index = {name: i for i, name in enumerate(names)}
    pairs = [(row, index[f]) for row, content in enumerate(contents) for f in content.features()]
    row, column = np.array(pairs, np.int64).T
    counts = np.bincount(column, minlength=len(names))
    idf = np.log(1.0 + len(contents) / counts)
    matrix = sparse.csr_matrix((idf[column], (row, column)), shape=(len(contents), len(names)))
    rows, projection = factorise(matrix, VECTOR_DIM, seed)
    return rows, (idf[:, None] * projection).astype(np.float32)


def _texts(contents: Sequence[ItemContent], dim: int) -> FloatArray:
    """[n, dim] sentence vectors, zero for an item without one."""
    return np.array([content.text or (0.0,) * dim for content in contents], np.float32)


def nearest_codes(x: FloatArray, codebook: FloatArray, n: int) -> tuple[IntArray, FloatArray]:
    """The `n` nearest rows of `codebook` for every row of x, nearest first, with squared distances; in chunks."""
    n = min(n, len(codebook))
    code, distance = np.empty((len(x), n), np.int64), np.empty((len(x), n), np.float32)
    norms = (codebook**2).sum(axis=1)
    for start in range(0, len(x), 65_536):
        rows = x[start : start + 65_536]
        d = (rows**2).sum(axis=1, keepdims=True) - 2 * rows @ codebook.T + norms
        best = np.argsort(d, axis=1, kind="stable")[:, :n]
        code[start : start + len(rows)] = best
        distance[start : start + len(rows)] = np.take_along_axis(d, best, axis=1)
    return code, distance


def balanced_assignment(
    code: IntArray, distance: FloatArray, parent: IntArray, capacity: IntArray, n_codes: int
) -> IntArray:
    """Give every row one of its codes so that no (parent, code) cell exceeds `capacity[parent]`.

    Rows propose to their nearest cell with room; a cell takes its nearest proposers. A row that runs out of
    choices takes the emptiest cell of its parent.
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
    """The power of two nearest to N^(1/levels), between 8 and 256."""
    power = round(np.log2(max(n_items, 2)) / max(levels, 1))
    return int(min(MAX_BRANCHING, max(8, 2**power)))


class SemanticTokenizer(Tokenizer):
    """Residual k-means codes, then last tokens that make the path unique."""

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
        """Fit on the training events (`item` [E] by user, `offsets` [U + 1]) and the items' contents [N]."""
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
        # Never quite 0, so that an unseen item can still be placed by what its content says of its company.
        weight = np.float32(max(content_weight, 1e-6))
        text = None if space.text is None else space.text * weight
        space = ContentSpace(space.features, space.projection * weight, space.to_collaborative / weight, text)
        last = unique_last_tokens(codes)
        sizes = [size] * code_levels + [_last_size(last)] + [MAX_BRANCHING] * (last.shape[1] - 1)
        return cls(np.concatenate([codes, last], axis=1), sizes, codebooks, space)

    def prefix(self, content: ItemContent) -> list[list[int]]:
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
        """From what `save` wrote."""
        books = [arrays[f"codebook_{i}"] for i in range(sum(name.startswith("codebook_") for name in arrays))]
        content = ContentSpace(
            tuple(meta["features"]), arrays["projection"], arrays["to_collaborative"], arrays.get("text")
        )
        return cls(codes, sizes, books, content)


def _codebook(residual: FloatArray, size: int, seed: int) -> FloatArray:
    kind = MiniBatchKMeans if len(residual) > MINI_BATCH_FROM else KMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than codes: some codes stay empty
        fitted = kind(n_clusters=size, n_init=1, max_iter=50, random_state=seed).fit(residual)
    return np.ascontiguousarray(fitted.cluster_centers_, dtype=np.float32)


def _level(residual: FloatArray, codebook: FloatArray, prefix: IntArray) -> IntArray:
    """Balanced codes of one level, under the cells of the levels before."""
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
    """Room to grow: twice the tokens in use, so that new items find a path near their like."""
    return int(min(MAX_BRANCHING, max(8, 2 * (last[:, 0].max() + 1))))
