"""Item vectors for semantic ids: collaborative vectors from the log, content vectors from item contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import TruncatedSVD

from model.tokenizers.item_content import ItemContent
from service.artifact.array_types import FloatArray, IntArray

CO_OCCURRENCE_WINDOW = 10
VECTOR_DIM = 48


def co_occurrence(item: IntArray, offsets: IntArray, n_items: int) -> sparse.csr_matrix:
    """Counts pairs of items at most `CO_OCCURRENCE_WINDOW` events apart in a history, weighted by 1/distance.

    Args:
        item: [events] item indices, grouped by user, oldest first.
        offsets: [users + 1] user `u` owns `item[offsets[u]:offsets[u + 1]]`.
        n_items: Number of items.

    Returns:
        [n_items, n_items] symmetric counts.
    """
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    total = sparse.csr_matrix((n_items, n_items), dtype=np.float32)
    for distance in range(1, CO_OCCURRENCE_WINDOW + 1):
        same = user[distance:] == user[:-distance]
        left, right = item[:-distance][same], item[distance:][same]
        weight = np.full(len(left), 1.0 / distance, np.float32)
        total = total + sparse.csr_matrix((weight, (left, right)), shape=(n_items, n_items))
    return (total + total.T).tocsr()


def positive_pmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Returns the positive pointwise mutual information, max(0, log (p(a, b) / (p(a) p(b)))).

    Its factorisation stands in for word2vec (Levy and Goldberg, 2014).

    Args:
        counts: [n, n] symmetric counts of pairs.
    """
    coo = counts.tocoo()
    total = coo.data.sum()
    margin = np.asarray(counts.sum(axis=1)).reshape(-1)
    value = np.log(np.maximum(coo.data * total / (margin[coo.row] * margin[coo.col]), 1e-12))
    keep = value > 0
    return sparse.csr_matrix((value[keep], (coo.row[keep], coo.col[keep])), shape=counts.shape)


def factorise(matrix: sparse.csr_matrix, dim: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Factorises a matrix by truncated SVD.

    Args:
        matrix: [n, features] values.
        dim: The most dimensions of the result.
        seed: Seed of the randomised SVD.

    Returns:
        Rows [n, ≤ dim] with a mean length of 1, and the projection [features, ≤ dim] that makes them of the matrix.
        Both are zero, with one dimension, if there is nothing to factorise: no counts, or a single row or column.
    """
    if matrix.nnz == 0 or min(matrix.shape) < 2:
        return np.zeros((matrix.shape[0], 1), np.float32), np.zeros((matrix.shape[1], 1), np.float32)
    dim = max(1, min(dim, min(matrix.shape) - 1))
    svd = TruncatedSVD(n_components=dim, random_state=seed)
    with np.errstate(divide="ignore", invalid="ignore"):  # the explained variance of equal rows is 0/0
        rows = svd.fit_transform(matrix)
    scale = max(float(np.linalg.norm(rows, axis=1).mean()), 1e-12)
    return (rows / scale).astype(np.float32), (svd.components_.T / scale).astype(np.float32)


def collaborative_vectors(item: IntArray, offsets: IntArray, n_items: int, dim: int, seed: int) -> FloatArray:
    """Returns item vectors from which items are used close together.

    Args:
        item: [events] item indices, grouped by user, oldest first.
        offsets: [users + 1] user `u` owns `item[offsets[u]:offsets[u + 1]]`.
        n_items: Number of items.
        dim: The most dimensions.
        seed: Seed of the factorisation.

    Returns:
        [n_items, ≤ dim] vectors with a mean length of 1, zero for an item without events.
    """
    vectors, _ = factorise(positive_pmi(co_occurrence(item, offsets, n_items)), dim, seed)
    return vectors


@dataclass(frozen=True)
class ContentSpace:
    """Maps content features to vectors, and these to collaborative vectors.

    Attributes:
        features: Names of the known features.
        projection: [features, feature dim] idf-weighted projection of the features.
        to_collaborative: [content dim, collaborative dim] ridge regression of the collaborative vectors.
        text: [text dim, dim] projection of the sentence vectors; its dimensions follow those of the features.
    """

    features: tuple[str, ...]
    projection: FloatArray
    to_collaborative: FloatArray
    text: FloatArray | None = None

    def vectors(self, contents: Sequence[ItemContent]) -> FloatArray:
        """Returns content vectors [n, content dim], zero for an item without known features and text."""
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
        """Fits the projections on the contents and the regression on the items with events.

        Args:
            contents: [items] contents in index order.
            collaborative: [items, collaborative dim] vectors.
            seen: [items] whether the item has events.
            seed: Seed of the factorisations.
        """
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
    """Vectors [n, dim] of idf-weighted features, and the projection [features, dim] that makes them.

    There are no dimensions with fewer than two features, because a single one does not tell items apart.
    """
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
    """Sentence vectors [n, dim], zero for an item without one."""
    return np.array([content.text or (0.0,) * dim for content in contents], np.float32)
