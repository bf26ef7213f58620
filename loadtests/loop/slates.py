"""Lists and clicks whose truth is known: the world in which off-policy estimates are judged.

There is a fixed set of situations (candidates with scores), and each subject is in one of them for each of several
lists. A click at a position depends on the item, the position, and the subject's own inclination, which all its lists
share: clicks of one subject hang together. The scores are noisy readings of the tastes, so a policy that trusts them
more earns more, and the law of every policy is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from model.online.estimators import Terms
from model.online.marginals import Law, all_marginals, log_weights
from model.online.reward_model import FOLDS, fit_folds
from service.artifact.array_types import Float64Array, IntArray
from service.engine.decode.draws import nucleus


@dataclass(frozen=True, slots=True)
class Setting:
    """One world, and the policy that is judged in it.

    Attributes:
        name: What it is called.
        k: Length of the lists.
        logged: The law that lists were drawn by.
        target: The law that is judged.
        subjects: Number of subjects.
        lists_max: Most lists of a subject; the least is 1.
        alike: How alike the subjects' inclinations to click are: 4 · Beta(alike, 3 · alike), whose mean is 1.
    """

    name: str
    k: int
    logged: Law
    target: Law
    subjects: int = 600
    lists_max: int = 6
    alike: float = 0.6


SETTINGS: tuple[Setting, ...] = (
    Setting("sharper", 5, Law(1.0), Law(0.6)),
    Setting("flatter", 5, Law(1.0), Law(1.8)),
    Setting("by score alone", 3, Law(1.0), Law(sampled=False), subjects=3000),
    Setting("nucleus", 5, Law(1.2), Law(1.0, 0.9)),
    Setting("long lists, heavy users", 10, Law(1.0), Law(0.7), lists_max=30, alike=0.25),
    Setting("short lists", 2, Law(1.0), Law(0.6)),
)

_SITUATIONS, _CANDIDATES, _ITEMS = 60, 24, 200


class World:
    """The situations of a setting, with what each policy does in them and what each item earns."""

    def __init__(self, setting: Setting, seed: int = 0) -> None:
        """Draws the world, and computes the marginals of both policies once."""
        rng = np.random.default_rng(seed)
        self.setting, k = setting, setting.k
        # The most willing subject clicks on the best item with a chance below 1.
        self._taste = np.minimum(5.0, np.exp(rng.normal(scale=0.7, size=_ITEMS)))
        self._item = np.stack([rng.choice(_ITEMS, _CANDIDATES, replace=False) for _ in range(_SITUATIONS)])
        reading = np.log(self._taste[self._item]) + rng.normal(scale=0.7, size=self._item.shape)
        self._scores = 1.2 * reading
        self._chance = rng.dirichlet(np.full(_SITUATIONS, 5.0))
        self._logged = np.stack(all_marginals(list(self._scores), [setting.logged] * _SITUATIONS, k))
        self._target = np.stack(all_marginals(list(self._scores), [setting.target] * _SITUATIONS, k))
        bias = 1.0 / np.log2(np.arange(k) + 2.0)
        # Mean click of an item at a position; a subject's inclination has mean 1 and multiplies it.
        self._click = 0.04 * self._taste[self._item][:, :, None] * bias
        self._log_weight = np.stack([log_weights(one, setting.logged) for one in self._scores])
        self._inside = np.stack([nucleus(one, setting.logged.nucleus) for one in self._log_weight])
        self._plain = np.stack([log_weights(one, Law()) for one in self._scores])
        self.truth = float(np.einsum("s,snk,snk->", self._chance, self._target, self._click))

    def replication(self, seed: int) -> Terms:
        """Draws subjects, lists and clicks, and returns what estimates need of them."""
        rng = np.random.default_rng((seed, crc32(self.setting.name.encode())))
        setting = self.setting
        lists = rng.integers(1, setting.lists_max + 1, size=setting.subjects)
        subject = np.repeat(np.arange(setting.subjects), lists)
        situation = rng.choice(_SITUATIONS, size=len(subject), p=self._chance)
        order = self._draw(rng, situation)
        inclined = 4.0 * rng.beta(setting.alike, 3.0 * setting.alike, size=setting.subjects)
        row, position = situation[:, None], np.arange(setting.k)
        chance = inclined[subject][:, None] * self._click[row, order, position]
        reward = (rng.random(chance.shape) < chance).astype(np.float64)
        return self._terms(subject, situation, order, reward)

    def _draw(self, rng: np.random.Generator, situation: IntArray) -> IntArray:
        key = self._log_weight[situation] + rng.gumbel(size=(len(situation), _CANDIDATES))
        key = np.where(self._inside[situation], key, key - 1e6)
        return np.argsort(-key, axis=1)[:, : self.setting.k]

    def _terms(self, subject: IntArray, situation: IntArray, order: IntArray, reward: Float64Array) -> Terms:
        setting, k = self.setting, self.setting.k
        row, position = situation[:, None], np.arange(k)
        weight = self._target[row, order, position] / self._logged[row, order, position]
        item, log_probability = self._item[row, order], self._plain[row, order]
        fold = subject % FOLDS
        models = fit_folds(
            np.repeat(fold, k), item.ravel(), np.tile(position, len(subject)), log_probability.ravel(), reward.ravel(),
            _ITEMS, k,
        )  # fmt: skip
        predicted, expected = np.zeros(reward.shape), np.zeros(len(subject))
        for number, model in enumerate(models):
            of_situation = np.stack([model.predict(self._item[s], self._plain[s], k) for s in range(_SITUATIONS)])
            mine = fold == number
            predicted[mine] = of_situation[row[mine], order[mine], position]
            expected[mine] = (self._target * of_situation).sum(axis=(1, 2))[situation[mine]]
        return Terms(
            subject, setting.subjects, np.ones(reward.shape, bool), weight, reward, predicted, expected,
            self._list_weight(situation, order) if k <= 3 else None,
        )  # fmt: skip

    def _list_weight(self, situation: IntArray, order: IntArray) -> Float64Array:
        """P_target(list) ÷ P_logged(list); neither law has a nucleus here."""
        logged = _log_probability(self._log_weight[situation], order)
        if self.setting.target.sampled:
            target = np.stack([log_weights(one, self.setting.target) for one in self._scores])[situation]
            return np.asarray(np.exp(_log_probability(target, order) - logged))
        best = np.argsort(-self._scores, axis=1, kind="stable")[:, : self.setting.k][situation]
        return np.asarray((best == order).all(axis=1) / np.exp(logged))


def _log_probability(log_weight: Float64Array, order: IntArray) -> Float64Array:
    """Log-probability of lists [L] under Plackett–Luce, vectorised over lists."""
    left = log_weight.copy()
    rows = np.arange(len(order))
    total = np.zeros(len(order))
    for item in order.T:
        total += left[rows, item] - np.logaddexp.reduce(left, axis=1)
        left[rows, item] = -np.inf
    return total
