"""Users who look at lists from the top, and whose every probability is known: where orders of a list are judged.

    P(look at p | still there) = 1 ÷ log₂(p + 1)
    P(click | look)            = σ(base + liking(situation, item) + appeal(item) + ABOVE · alike above)
    a click ends the visit with the probability LEAVE

A situation is a user at a moment: candidates, with the scores of a ranker that reads likings with an error and knows
nothing of appeals. Lists are drawn from them at temperature 1, so the law of each is known. Dwell is exponential, its
mean a property of the item.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt
import polars as pl

from model.online.logged_lists import LoggedList, Sample
from model.online.marginals import Law, all_marginals, log_weights
from model.slate.impressions import Impressions
from model.slate.learning import Items
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.scorers.order_weights import OrderWeights
from service.engine.decoding import Decoding
from service.ordering.expected_reward import Slate, expected_rewards

LEAVE, ABOVE, BASE = 0.15, -0.5, -1.6
_LIKING, _APPEAL, _ERROR, _DWELL = 1.0, 0.7, 0.3, 0.5


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a world is.

    Attributes:
        k: Length of the lists.
        items: Items.
        categories: Categories.
        situations: Situations.
        candidates: Candidates in each.
        subjects: Users.
        lists: Lists that each user is shown.
    """

    k: int = 8
    items: int = 150
    categories: int = 8
    situations: int = 120
    candidates: int = 16
    subjects: int = 10_000
    lists: int = 8


class World:
    """Items, situations and the truth about them."""

    def __init__(self, shape: Shape, seed: int, *, plain: bool = False) -> None:
        """Draws a world.

        Args:
            shape: How large it is.
            seed: Seed of everything.
            plain: Whether the order by score is the best one already: the ranker reads all without an error, and
                nothing depends on what stands above.
        """
        rng = np.random.default_rng((seed, 21))
        self.shape, self.plain, self._seed = shape, plain, seed
        self.category: IntArray = rng.permutation(np.arange(shape.items) % shape.categories)
        appeal = rng.normal(scale=_APPEAL, size=shape.items)
        self.dwell: Float64Array = 30.0 * np.exp(rng.normal(scale=_DWELL, size=shape.items))
        self.item: IntArray = np.stack(
            [rng.choice(shape.items, shape.candidates, replace=False) for _ in range(shape.situations)]
        )
        liking = rng.normal(scale=_LIKING, size=self.item.shape)
        self.odds: Float64Array = BASE + liking + appeal[self.item]
        self.score: Float64Array = liking + rng.normal(scale=_ERROR, size=self.item.shape)
        if plain:
            self.score = self.odds - BASE
        self.examination: Float64Array = 1.0 / np.log2(np.arange(shape.k) + 2.0)
        self.marginals: Float64Array = np.stack(all_marginals(list(self.score), [Law()] * shape.situations, shape.k))

    @property
    def items(self) -> Items:
        """What a learner may know of the items."""
        names = [f"category {number}" for number in range(self.shape.categories)]
        return Items(self.category.astype(np.int32), names)

    def lists(self) -> Impressions:
        """Draws lists and shows them to the users."""
        return self.shown()[0]

    def shown(self) -> tuple[Impressions, IntArray, IntArray]:
        """Returns the same lists, with [L] their situations and [L, K] their places among the candidates."""
        shape, rng = self.shape, np.random.default_rng((self._seed, 22))
        subject = np.repeat(np.arange(shape.subjects), shape.lists)
        situation = rng.integers(shape.situations, size=len(subject))
        key = np.stack([log_weights(one, Law()) for one in self.score])[situation]
        order = np.argsort(-(key + rng.gumbel(size=key.shape)), axis=1)[:, : shape.k]
        row = situation[:, None]
        item = self.item[row, order]
        clicked = self._clicks(rng, item, self.odds[row, order])
        dwell = np.where(clicked, rng.exponential(self.dwell[item]), 0.0)
        seen = Impressions(subject, item, self.score[row, order], clicked, dwell, self.marginals[row, order])
        return seen, situation, order

    def logged(self) -> Sample:
        """Returns the same lists as a log has them, all of one segment; their reward is clicks."""
        seen, situation, order = self.shown()
        decoding, scores = Decoding("temperature", temperature=1.0), self.score.astype(np.float32)
        lists = [
            LoggedList(
                f"L{n}", owner, "all", decoding, "m", scores[s], self.item[s], order[n],
                tuple(str(item) for item in seen.item[n].tolist()), seen.clicked[n].astype(np.float64), {},
            )
            for n, (owner, s) in enumerate(zip(seen.subject.tolist(), situation.tolist(), strict=True))
        ]  # fmt: skip
        made = pl.DataFrame(
            {"segment": "all", "owner": seen.subject, "decoding": "drawn", "earned": seen.clicked.sum(axis=1) * 1.0}
        )
        return Sample(lists, made, subjects=self.shape.subjects)

    def _clicks(self, rng: np.random.Generator, item: IntArray, odds: Float64Array) -> npt.NDArray[np.bool_]:
        """Walks down the lists; a plain loop over positions, apart from the code that is judged."""
        clicked = np.zeros(item.shape, bool)
        there = np.ones(len(item), bool)
        for p in range(item.shape[1]):
            alike = sum((self.category[item[:, p]] == self.category[item[:, q]]) / (p - q) for q in range(p))
            attraction = 1.0 / (1.0 + np.exp(-(odds[:, p] + (0.0 if self.plain else ABOVE) * alike)))
            clicked[:, p] = there & (rng.random(len(item)) < self.examination[p] * attraction)
            there &= ~(clicked[:, p] & (rng.random(len(item)) < (0.0 if self.plain else LEAVE)))
        return clicked

    def truth(self, situation: int, *, dwell: bool = False) -> tuple[OrderWeights, Slate, IntArray]:
        """Returns the true order model of the best k by score in a situation, and their places, best score first.

        Args:
            situation: The situation.
            dwell: Whether a click is worth its dwell.
        """
        places = np.argsort(-self.score[situation], kind="stable")[: self.shape.k]
        item, n = self.item[situation, places], self.shape.items
        value = self.dwell / self.dwell.mean() if dwell else np.ones(n)
        effects = {"alike": 0.0 if self.plain else ABOVE, "follows": 0.0}
        weights = OrderWeights(
            "expected_reward", self.examination, 0.0 if self.plain else LEAVE, np.array([0.0, 1.0]),
            {"base": 0.0, "score": 1.0, "item": 0.0, **effects}, np.zeros(n, np.float32), value.astype(np.float32),
            self.category.astype(np.int32), np.zeros((self.shape.categories,) * 2, np.float32),
        )  # fmt: skip
        return weights, Slate.of(weights, item, self.odds[situation, places]), places

    def best(self, situation: int, *, dwell: bool = False) -> float:
        """Returns what the best order of these k earns, of all orders."""
        weights, slate, _ = self.truth(situation, dwell=dwell)
        return float(expected_rewards(weights, slate, _orders(self.shape.k)).max())

    def earned(self, situation: int, order: IntArray, *, dwell: bool = False) -> float:
        """Returns what an order earns.

        Args:
            situation: The situation.
            order: [k] places among the best k by score.
            dwell: Whether a click is worth its dwell.
        """
        weights, slate, _ = self.truth(situation, dwell=dwell)
        return float(expected_rewards(weights, slate, order[None])[0])


def _orders(k: int) -> IntArray:
    return np.array(list(permutations(range(k))), np.int64)
