"""P(item i at position p) of a sampled list: the marginals of the Plackett–Luce law inside a nucleus, then outside.

A list is drawn item by item without replacement, each with a probability in proportion to w = exp(score ÷ temperature)
(Plackett–Luce). The same law is a race: item i arrives at a time T_i ~ Exp(w_i), and the list is the order of arrival.
So

    P(i at p) = ∫ w_i exp(−w_i t) · P(exactly p − 1 of the others arrived before t) dt

The second factor is Poisson-binomial with probabilities 1 − exp(−w_j t). The integral is taken over x = log t with the
trapezoid rule, whose error falls exponentially in the number of nodes for such integrands (Trefethen and Weideman, The
exponentially convergent trapezoidal rule, SIAM Review 2014). The first position has the closed form w_i ÷ Σ w.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.engine.decode.draws import nucleus

# Largest distance of the nodes in log t. Errors stay below 1e-7 (tests compare with enumeration).
_STEP = 0.35
# What is cut off: the chance that two arrive before the first node, or fewer than k after the last one.
_CUT = 1e-10
# Logarithm of w t from which on an item has surely arrived.
_SURE = 6.0
# Numbers held at once by a block of lists.
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Law:
    """How a list was drawn, or would be.

    Attributes:
        temperature: Divides the scores.
        nucleus: Probability mass of the nucleus; 1 or more where there is none.
        sampled: False for a list by score alone.
    """

    temperature: float = 1.0
    nucleus: float = 2.0
    sampled: bool = True


def log_weights(scores: FloatArray | Float64Array, law: Law) -> Float64Array:
    """Returns the logarithms [n] of the first position's probabilities: log-softmax of score ÷ temperature."""
    tempered = np.asarray(scores, np.float64) / law.temperature
    shifted = tempered - tempered.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def marginals(scores: FloatArray | Float64Array, law: Law, k: int) -> Float64Array:
    """Returns P(item at position) of one list, [n, min(k, n)]; each column sums to 1.

    Args:
        scores: [n] fused scores of all candidates, before the temperature.
        law: How the list is drawn. By score alone, each position has one item, the first of equal ones.
        k: Length of the list.
    """
    return all_marginals([scores], [law], k)[0]


def all_marginals(
    scores: Sequence[FloatArray | Float64Array],
    laws: Sequence[Law],
    k: int,
    wanted: Sequence[IntArray] | None = None,
) -> list[Float64Array]:
    """Returns the marginals of several lists, computed together; see `marginals`.

    Args:
        scores: Scores of the candidates of each list.
        laws: How each list is drawn.
        k: Length of the lists.
        wanted: The candidates of each list whose rows are wanted, as places in its scores; the rows of others stay 0.
            None computes all. A few are far cheaper.
    """
    out = [np.zeros((len(one), min(k, len(one)))) for one in scores]
    races: list[_Race] = []
    for place, (one, law) in enumerate(zip(scores, laws, strict=True)):
        positions = out[place].shape[1]
        if law.sampled:
            races += _races(place, log_weights(one, law), law, positions, None if wanted is None else wanted[place])
        else:
            order = np.argsort(-np.asarray(one, np.float64), kind="stable")[:positions]
            out[place][order, np.arange(positions)] = 1.0
    for block in _blocks(races):
        for race, found in zip(block, _run(block), strict=True):
            out[race.place][race.items[: race.wanted], race.first : race.first + race.positions] = found
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Race:
    """A part of a list that is one Plackett–Luce draw.

    Attributes:
        place: Number of the list.
        items: [m] places of its candidates, the wanted ones first.
        wanted: Number of wanted ones.
        first: Position of the list where it begins.
        positions: Positions that it fills.
        log_weight: [m] logarithms of the weights, which sum to 1.
        nodes: Nodes of the integral, in log t.
    """

    place: int
    items: IntArray
    wanted: int
    first: int
    positions: int
    log_weight: Float64Array
    nodes: Float64Array

    @property
    def size(self) -> int:
        """Numbers that it needs at once: a distribution for each node and each open half."""
        return len(self.nodes) * (len(self.items) + self.positions * (2 + len(self.items).bit_length()))


def _races(place: int, log_weight: Float64Array, law: Law, k: int, wanted: IntArray | None) -> Iterator[_Race]:
    """Yields the race inside the nucleus, and where the list is longer, the one outside."""
    inside = nucleus(log_weight, law.nucleus)
    first = 0
    for part in (np.flatnonzero(inside), np.flatnonzero(~inside)):
        positions = min(k - first, len(part))
        if positions:
            asked = np.ones(len(part), bool) if wanted is None else np.isin(part, wanted)
            items = np.concatenate([part[asked], part[~asked]])
            weight = log_weight[items] - np.logaddexp.reduce(log_weight[items])
            count = int(asked.sum())
            yield _Race(place, items, count, first, positions, weight, _nodes(weight, positions))
        first += positions


def _nodes(log_weight: Float64Array, positions: int) -> Float64Array:
    """Nodes in log t: from where hardly any second item has arrived to where all positions are surely taken.

    The logarithm of the p-th arrival varies by 1 ÷ √p where weights are alike, so nodes lie closer for long lists.
    """
    step = min(_STEP, 1.0 / np.sqrt(positions + 1.0))
    least = np.sort(log_weight)[-positions]
    low = 0.5 * np.log(_CUT) - 1.0
    high = np.log(np.log(positions / _CUT)) - least
    return np.arange(low, high + step, step)


def _blocks(races: Sequence[_Race]) -> list[list[_Race]]:
    """Races of like size together, few enough to fit in memory."""
    blocks: list[list[_Race]] = []
    for race in sorted(races, key=lambda one: (one.positions, len(one.items), one.wanted, len(one.nodes))):
        first = blocks[-1][0] if blocks else race
        alike = race.positions == first.positions and len(race.items) <= 1.25 * len(first.items)
        if blocks and alike and (len(blocks[-1]) + 1) * race.size <= _BLOCK:
            blocks[-1].append(race)
        else:
            blocks.append([race])
    return blocks


def _run(block: Sequence[_Race]) -> list[Float64Array]:
    """The marginals [wanted, positions] of each race. Padded items never arrive; padded nodes weigh nothing."""
    items, nodes = max(len(race.items) for race in block), max(len(race.nodes) for race in block)
    wanted, k = max(race.wanted for race in block), block[0].positions
    log_weight = np.full((items, len(block), 1), -np.inf)
    x, weight = np.zeros((len(block), nodes)), np.zeros((len(block), nodes))
    for row, race in enumerate(block):
        log_weight[: len(race.items), row, 0] = race.log_weight
        x[row] = race.nodes[-1]
        x[row, : len(race.nodes)] = race.nodes
        weight[row, : len(race.nodes)] = race.nodes[1] - race.nodes[0]
    rate = np.exp(np.minimum(log_weight + x, _SURE))  # w t
    arrived = -np.expm1(-rate)
    density = weight * rate[:wanted] * np.exp(-rate[:wanted])
    found = np.zeros((wanted, k, len(block)))
    if k > 1 and wanted:
        _leave_one_out(arrived, density, found)
    found[:, 0] = np.exp(log_weight[:wanted, :, 0])
    return [found[: race.wanted, :, row] for row, race in enumerate(block)]


def _leave_one_out(arrived: Float64Array, density: Float64Array, found: Float64Array) -> None:
    """Writes ∫ density · P(exactly m of the others arrived) into `found` [wanted, m, lists].

    The others' distribution is built by halving: what lies outside a range of items is known when the range is entered,
    and each half adds the other one. Only products of probabilities are added, so nothing cancels.

    Args:
        arrived: [items, lists, nodes] the chance that an item has arrived.
        density: [wanted, lists, nodes] the density of the arrival of the first items, times the weight of the node.
        found: Where the result goes.
    """
    none = np.zeros((found.shape[1], *arrived.shape[1:]))
    none[0] = 1.0
    stack: list[tuple[int, int, Float64Array]] = [(0, len(arrived), none)]
    while stack:
        low, high, others = stack.pop()
        if high - low == 1:
            found[low] = np.einsum("lt,mlt->ml", density[low], others)
            continue
        middle = (low + high) // 2
        stack.append((low, middle, _with(others, arrived, middle, high)))
        if middle < len(density):
            stack.append((middle, high, _with(others, arrived, low, middle)))


def _with(others: Float64Array, arrived: Float64Array, low: int, high: int) -> Float64Array:
    """The distribution [m, lists, nodes] of arrivals among more items: the Poisson-binomial recursion, item by item."""
    count: Float64Array = others.copy()
    moved = np.empty_like(count)
    for p in arrived[low:high]:
        np.multiply(count, p, out=moved)
        count -= moved
        count[1:] += moved[:-1]
    return count


def conditionals(scores: FloatArray | Float64Array, law: Law, order: IntArray) -> Float64Array:
    """Returns the log-probability [len(order)] of each position of a sampled list given those above.

    Args:
        scores: [n] fused scores of all candidates.
        law: How the list was drawn.
        order: Candidates in the order of the list, as places in `scores`.

    Returns:
        −inf from the first position on that the law cannot draw.
    """
    log_weight = log_weights(scores, law)
    inside = nucleus(log_weight, law.nucleus)
    left = np.ones(len(log_weight), bool)
    out = np.full(len(order), -np.inf)
    for position, item in enumerate(order):
        part = left & inside if (left & inside).any() else left
        if not part[item]:
            break
        out[position] = log_weight[item] - np.logaddexp.reduce(log_weight[part])
        left[item] = False
    return out
