"""Ranks candidates anew at each position, by their scores and by how much they differ from the items above.

Both methods have one parameter, the weight w: 0 ranks by score alone, 1 by difference alone. The unit of scores is the
distance between the first and the k-th of the plain list, so that a weight means the same on every rung. Items are
alike by the values of their facets: the cosine of the sets of their categories, brand and attributes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import Float64Array
from service.rules.selection import Gain
from service.rules.spec import Diversity

# What two items of the same facets still differ by, so that more than one of them can be chosen.
_OWN = 0.05
_LEAST = 1e-9


def similarities(facets: Sequence[Sequence[tuple[str, str]]]) -> Float64Array:
    """Returns [n, n] the cosine of the facets of items; an item without any is like none but itself.

    Args:
        facets: The values of each item, with the names of their facets.
    """
    column: dict[tuple[str, str], int] = {}
    rows = [row for row, values in enumerate(facets) for _ in values]
    columns = [column.setdefault(value, len(column)) for values in facets for value in values]
    table = np.zeros((len(facets), max(1, len(column))))
    table[rows, columns] = 1.0
    table /= np.maximum(np.sqrt(table.sum(axis=1, keepdims=True)), 1.0)
    found: Float64Array = table @ table.T
    np.fill_diagonal(found, 1.0)
    return found


def relevance(keys: Float64Array, k: int) -> Float64Array:
    """Returns [n] scores in units of the distance from the best to the k-th best, which are 0 and −1."""
    best = np.sort(keys)[::-1][:k]
    spread = float(best[0] - best[-1]) if len(best) else 0.0
    scaled: Float64Array = (keys - best[0]) / (spread if spread > _LEAST else 1.0) if len(best) else keys
    return scaled


def gain_of(diversity: Diversity, relevance: Float64Array, alike: Float64Array) -> Gain:
    """Returns what ranks the candidates.

    Args:
        diversity: Method and weight.
        relevance: [n] scores.
        alike: [n, n] similarities.
    """
    return (Mmr if diversity.method == "mmr" else Dpp)(diversity.weight, relevance, alike)


class Mmr:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): (1 − w) · relevance − w · max similarity."""

    def __init__(self, weight: float, relevance: Float64Array, alike: Float64Array) -> None:
        self._weight, self._relevance, self._alike = weight, relevance, alike
        self._nearest = np.zeros(len(relevance))

    def keys(self) -> Float64Array:
        """Returns [n] the keys for the next position."""
        keys: Float64Array = (1.0 - self._weight) * self._relevance - self._weight * self._nearest
        return keys

    def placed(self, place: int) -> None:
        """Says which candidate was placed."""
        np.maximum(self._nearest, self._alike[place], out=self._nearest)


class Dpp:
    """Greedy MAP of a determinantal point process with kernel L = Diag(q) S Diag(q), q = exp(α · relevance).

    2 α = (1 − w) / w. A candidate adds 2 α · relevance + log d² to the logarithm of the determinant, where d² is what
    the Cholesky factor of S leaves of its diagonal; each choice updates all of them (Chen, Zhang and Zhou, NeurIPS
    2018, algorithm 1; since L is S with rows and columns scaled, the factor of S alone is enough).
    """

    def __init__(self, weight: float, relevance: Float64Array, alike: Float64Array) -> None:
        self._relevance = relevance * ((1.0 - weight) / weight)
        self._alike = (1.0 - _OWN) * alike + _OWN * np.eye(len(alike))
        self._left = np.ones(len(relevance))
        self._rows: list[Float64Array] = []

    def keys(self) -> Float64Array:
        """Returns [n] the keys for the next position."""
        keys: Float64Array = self._relevance + np.log(np.maximum(self._left, _LEAST))
        return keys

    def placed(self, place: int) -> None:
        """Says which candidate was placed."""
        row = self._alike[place].copy()
        for earlier in self._rows:
            row -= earlier[place] * earlier
        row /= np.sqrt(max(self._left[place], _LEAST))
        self._rows.append(row)
        self._left = self._left - row * row
