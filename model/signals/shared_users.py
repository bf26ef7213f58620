"""How many users two items share, in integers, and the similarities of item-CF that are made of them.

Two items are similar when the same users have events with them. The kinds are those of `implicit` (Frederickson):

- cosine: `n_ij ÷ (√n_i · √n_j)`, with n_ij the users of both items and n_i those of one;
- tfidf: `w_ij ÷ (√w_ii · √w_jj)`, where a user u with n_u items adds `idf_u² = log(items ÷ (1 + n_u))²` to w_ij;
- bm25: `w_ij · a_i · a_j`, with `a_i = (K1 + 1) ÷ (K1 · (1 − B + B · n_i ÷ mean n) + 1)`.

`idf_u²` is added up in units of 2⁻²⁴, so that every sum is an integer: it is the same in whatever order, in however
many parts, and by whatever engine the users are counted. One machine, a log that streams and Spark share what follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from model.data.dataset import Sequences
from model.data.long_histories import ITEM_CF_EVENTS, newest
from model.signals.neighbour_rows import blocks, largest
from service.artifact.array_types import Float64Array, IntArray

Kind = Literal["cosine", "tfidf", "bm25"]
KINDS: tuple[Kind, ...] = ("cosine", "tfidf", "bm25")

_UNITS = 1 << 24
_K1, _B = 1.2, 0.75


@dataclass(frozen=True, eq=False)
class ItemTotals:
    """What is known of each item alone.

    Attributes:
        users: [items] users who have an event with the item.
        weight: [items] the sum of their weights.
    """

    users: IntArray
    weight: IntArray

    @classmethod
    def of(cls, touched: sparse.csr_array) -> Self:
        """Counts the users of a matrix of `touched_items`."""
        user = np.repeat(np.arange(touched.shape[0]), np.diff(touched.indptr))
        weight = user_weights(np.diff(touched.indptr), touched.shape[1])
        totals = np.zeros(touched.shape[1], np.int64)
        np.add.at(totals, touched.indices, weight[user])
        return cls(np.bincount(touched.indices, minlength=touched.shape[1]).astype(np.int64), totals)

    def __add__(self, other: ItemTotals) -> ItemTotals:
        return ItemTotals(self.users + other.users, self.weight + other.weight)


def touched_items(train: Sequences) -> sparse.csr_array:
    """Returns which items each user has events with, [users, items] of ones in int64, in ascending order of items.

    How many events a user has with an item does not count. Of a user with more than `ITEM_CF_EVENTS` events the newest
    are counted.
    """
    train = newest(train, ITEM_CF_EVENTS)
    user = np.repeat(np.arange(train.n_users, dtype=np.int64), train.lengths)
    once = np.unique(user * train.n_items + train.item)
    user, item = np.divmod(once, max(train.n_items, 1))
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(user, minlength=train.n_users))])
    return sparse.csr_array((np.ones(len(item), np.int64), item, ends), shape=(train.n_users, train.n_items))


def user_weights(n_touched: IntArray, n_items: int) -> IntArray:
    """Returns what each user adds to a pair of their items, in units of 2⁻²⁴, at least one unit.

    Args:
        n_touched: [users] distinct items of each user.
        n_items: Number of items in the catalogue.
    """
    idf = np.log(float(n_items)) - np.log1p(n_touched)
    return np.asarray(np.rint(idf**2 * _UNITS), np.int64).clip(min=1)


def shared(touched: sparse.csr_array, part: slice, *, weighted: bool) -> sparse.csr_array:
    """Returns what the items of a range share with all items, int64 [items of the range, items], the diagonal too.

    Args:
        touched: A matrix of `touched_items`, of all users or of some: the results of parts add up.
        part: The range of items.
        weighted: Whether the users count by their weights.
    """
    user = np.repeat(np.arange(touched.shape[0]), np.diff(touched.indptr))
    inside = (touched.indices >= part.start) & (touched.indices < part.stop)
    user, item = user[inside], touched.indices[inside] - part.start
    count = user_weights(np.diff(touched.indptr), touched.shape[1])[user] if weighted else np.ones(len(user), np.int64)
    rows = sparse.csr_array((count, (item, user)), shape=(part.stop - part.start, touched.shape[0]))
    both = sparse.csr_array(rows @ touched)
    both.sort_indices()
    return both


def neighbour_table(
    kind: Kind, neighbours: int, totals: ItemTotals, rows: Iterable[tuple[int, sparse.csr_array]]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Makes the table of the most similar items out of integers.

    Args:
        kind: Kind of similarity.
        neighbours: Neighbours kept for each item.
        totals: What is known of each item alone.
        rows: The first item and the integers of each range of items, as `shared` returns them; weighted for every kind
            but the cosine.

    Returns:
        Neighbours and similarities, [items, min(neighbours, items)] each, as `ItemCF` stores them.
    """
    n_items = len(totals.users)
    width = min(neighbours, n_items)
    table = np.repeat(np.arange(n_items, dtype=np.int32)[:, None], width, axis=1)
    values = np.zeros((n_items, width), np.float32)
    scale = _scale(kind, totals)
    for start, block in rows:
        for row in range(block.shape[0]):
            span = slice(block.indptr[row], block.indptr[row + 1])
            columns = block.indices[span]
            similarity = block.data[span] * scale[start + row] * scale[columns]
            nearest, near = largest(columns, similarity, width, start + row)
            table[start + row, : len(nearest)] = nearest
            values[start + row, : len(nearest)] = near
    return table, values


def shared_rows(touched: sparse.csr_array, kind: Kind) -> Iterator[tuple[int, sparse.csr_array]]:
    """Yields the integers of all items, range by range, for `neighbour_table`."""
    n_items = touched.shape[1]
    for part in blocks(n_items, n_items):
        yield part.start, shared(touched, part, weighted=kind != "cosine")


def _scale(kind: Kind, totals: ItemTotals) -> Float64Array:
    """[items] the factor of an item: a similarity is the integer of a pair times the factors of both."""
    users = totals.users.astype(np.float64)
    if kind == "bm25":
        length = (1 - _B) + _B * users / max(users.mean(), np.finfo(np.float64).tiny)
        return np.asarray((_K1 + 1) / (_K1 * length + 1) / np.sqrt(_UNITS), np.float64)
    norm = np.sqrt(users if kind == "cosine" else totals.weight.astype(np.float64))
    return np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
