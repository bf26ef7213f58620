"""Clicks given looks: how an item's score, the item itself and what stands above it make a click more probable.

    P(click at p | clicks above) = b_p · e_p · a_p,   a_p = σ(w · x_p + u_item)
    b_p+1 = 1 − leave after a click,   b_p (1 − e_p a_p) ÷ (1 − b_p e_p a_p) after none

b is the probability that the user is still there: a click may end the visit, and a list without clicks makes it less
likely that somebody looked (the dependent click model: Guo, Liu and Wang, WSDM 2009). e is given, from `position_bias`.
u has a Gaussian prior, whose spread is found with it (empirical Bayes). The likelihood is maximised by L-BFGS.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from model.slate.impressions import Impressions
from service.artifact.array_types import Float64Array, IntArray

# Columns of w: a constant, the standardised score, and what stands above.
COLUMNS = ("base", "score", "alike", "follows")
_STEPS, _MORE_STEPS = 60, 15
_TINY = 1e-9
# Spread of the prior of weights other than the constant.
_WEIGHT_SPREAD = 2.0
_SPREADS = (0.02, 3.0)


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Lists as the model reads them.

    Attributes:
        columns: [L, K, columns] x.
        item: [L, K] numbers of the items, below `items`; 0 where nothing is shown.
        items: Number of items.
        clicked: [L, K] 1 for a click.
        shown: [L, K] 1 where something is shown.
    """

    columns: Float64Array
    item: IntArray
    items: int
    clicked: Float64Array
    shown: Float64Array

    @classmethod
    def of(cls, seen: Impressions, columns: Float64Array, number: IntArray, items: int) -> Observed:
        """Takes the clicks of lists.

        Args:
            seen: The lists.
            columns: [L, K, columns] x.
            number: [L, K] numbers of the items.
            items: Number of items.
        """
        shown = seen.shown
        return cls(
            columns, np.where(shown, number, 0), items, (seen.clicked & shown).astype(float), shown.astype(float)
        )


@dataclass(slots=True, eq=False)
class ClickModel:
    """What was learned.

    Attributes:
        weights: [columns] w.
        item: [items] u.
        leave: Probability that a click ends the visit.
        spread: Spread of u.
        likelihood: Logarithm of the likelihood of the clicks, with the prior.
    """

    weights: Float64Array
    item: Float64Array
    leave: float = 0.1
    spread: float = 0.5
    likelihood: float = -np.inf

    @property
    def fitted(self) -> bool:
        """Whether it comes from a search."""
        return self.likelihood > -np.inf

    @classmethod
    def start(cls, items: int) -> ClickModel:
        """Returns where the search begins."""
        return cls(np.array([-2.0] + [0.0] * (len(COLUMNS) - 1)), np.zeros(items))

    def attraction(self, seen: Observed, *, above: bool = True) -> Float64Array:
        """Returns [L, K] a; without what stands above if that is left out."""
        weights = self.weights if above else np.where(np.isin(COLUMNS, ("alike", "follows")), 0.0, self.weights)
        return np.asarray(1.0 / (1.0 + np.exp(-(seen.columns @ weights + self.item[seen.item]))))

    def factor(self, seen: Observed, examination: Float64Array) -> Float64Array:
        """Returns [L, K] what else than position and item the probability of a click depends on, as a factor.

        Args:
            seen: The lists.
            examination: [K] e.
        """
        attracted = self.attraction(seen)
        found = attracted / np.maximum(self.attraction(seen, above=False), _TINY)
        there = np.ones(len(attracted))
        for position in range(attracted.shape[1]):
            found[:, position] *= there
            there = there * (
                1.0 - self.leave * examination[position] * attracted[:, position] * seen.shown[:, position]
            )
        return np.asarray(np.maximum(found, 0.05))


def fit(seen: Observed, examination: Float64Array, start: ClickModel) -> ClickModel:
    """Maximises the likelihood of the clicks, and finds the spread of u that goes with it.

    Args:
        seen: The lists.
        examination: [K] e.
        start: Where the search begins.
    """
    columns = seen.columns.shape[2]
    x, clicked, shown = (torch.from_numpy(one) for one in (seen.columns, seen.clicked, seen.shown))
    e, item, lists = torch.from_numpy(examination), torch.from_numpy(seen.item), len(seen.clicked)

    def loss(values: Float64Array) -> tuple[float, Float64Array]:
        """The penalised negative log-likelihood of a list, and its gradient."""
        at = torch.from_numpy(values.copy()).requires_grad_()
        w, u, leave = at[:columns], at[columns:-1], torch.sigmoid(at[-1])
        likelihood = log_likelihood(x @ w + u[item], e, leave, clicked, shown)
        prior = (u**2).sum() / (2.0 * start.spread**2) + (w[1:] ** 2).sum() / (2.0 * _WEIGHT_SPREAD**2)
        value = (prior - likelihood) / lists
        value.backward()  # type: ignore[no-untyped-call]
        assert at.grad is not None  # noqa: S101 - backward has made it
        return value.item(), at.grad.numpy()

    begin = np.concatenate([start.weights, start.item, [np.log(start.leave / (1.0 - start.leave))]])
    steps = _MORE_STEPS if start.fitted else _STEPS
    with one_thread():
        done = optimize.minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    leave = float(np.clip(1.0 / (1.0 + np.exp(-done.x[-1])), 1e-4, 1 - 1e-4))
    found = ClickModel(done.x[:columns], done.x[columns:-1], leave, start.spread, -float(done.fun) * lists)
    found.spread = _spread(found, seen, examination)
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Has torch and BLAS use one thread: these arrays are so small that threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def log_likelihood(odds: Tensor, e: Tensor, leave: Tensor, clicked: Tensor, shown: Tensor) -> Tensor:
    """Returns Σ log P(click or none) over the positions shown, walking down the lists together.

    Args:
        odds: [L, K] log-odds of a click given a look.
        e: [K] looks.
        leave: Probability that a click ends the visit.
        clicked: [L, K] 1 for a click.
        shown: [L, K] 1 where something is shown.
    """
    looked = torch.sigmoid(odds) * e
    there = torch.ones(len(odds), dtype=odds.dtype)
    total = torch.zeros((), dtype=odds.dtype)
    for position in range(odds.shape[1]):
        click, seen, one = clicked[:, position], shown[:, position], looked[:, position]
        chance = (there * one).clamp(_TINY, 1.0 - _TINY)
        total = total + (seen * (click * chance.log() + (1.0 - click) * (-chance).log1p())).sum()
        after_none = there * (1.0 - one) / (1.0 - chance)
        there = torch.where(seen > 0, click * (1.0 - leave) + (1.0 - click) * after_none, there)
    return total


def _spread(model: ClickModel, seen: Observed, examination: Float64Array) -> float:
    """The spread of u: the root of the mean of u² and its posterior variance, over items that were shown."""
    attracted = model.attraction(seen)
    chance = np.clip(attracted * examination, _TINY, 1.0 - _TINY)
    slope = chance * (1.0 - attracted)
    information = np.bincount(
        seen.item.ravel(), (seen.shown * slope**2 / (chance * (1.0 - chance))).ravel(), seen.items
    )
    there = np.bincount(seen.item.ravel(), seen.shown.ravel(), seen.items) > 0
    variance = 1.0 / (information + 1.0 / model.spread**2)
    found = float(np.sqrt((model.item[there] ** 2 + variance[there]).mean())) if there.any() else model.spread
    return float(np.clip(found, *_SPREADS))
