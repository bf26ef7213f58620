"""The bonus of cold items: how much is added to the score of items without training events.

Stand-ins tell where such an item belongs among its like, but nothing in a log tells how much it should be held against
an item that nobody has taken. Validation questions are of the same log, so nearly all their targets have events: they
cannot show what a bonus gains, only what it costs all other lists. So the bonus is no optimum but a budget: the largest
that lowers recall@10 and NDCG@10 of validation by at most `LOSS`. New items are shown, and the log of the next training
has what users made of them. (Questions for items held out with all their events would show the gain too, but need a
training without them; `loadtests.quality.cold` measures it so.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.evaluation.metrics import ndcg, recall
from model.ranking.candidates import Candidates, blocks_of
from model.ranking.held_out import ranks_of
from model.ranking.learning import LEAST_ANSWERED, Weights
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.ranker_weights import DEFAULT_GROUP

# Bonuses that are tried, in log-probabilities, in this order.
BONUSES = tuple(step / 10 for step in range(11))
# Share of recall@10 and of NDCG@10 that a bonus may cost.
LOSS = 0.005


@dataclass(frozen=True)
class ColdBonus:
    """The bonus, and the trials that it was chosen by.

    Attributes:
        bonus: What is added to the score of each cold item.
        trials: Bonus, recall@10 and NDCG@10 of each trial, up to the first that costs too much.
    """

    bonus: float
    trials: tuple[Mapping[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns what the manifest says of it."""
        return {"bonus": self.bonus, "loss_allowed": LOSS, "trials": [dict(trial) for trial in self.trials]}


def choose_bonus(candidates: Candidates, groups: Mapping[str, Weights], mark: str) -> ColdBonus:
    """Returns the largest bonus that costs little; all smaller ones cost little as well, so chance gets no say.

    Args:
        candidates: Validation questions with candidates.
        groups: Weights of the other signals, by group of users; the first is `default`.
        mark: Name of the signal that is 1 for cold items and 0 for others.

    Returns:
        The bonus; 0 if there are too few questions to tell, or none that is answered among the first ten.
    """
    if int(candidates.answered.sum()) < LEAST_ANSWERED:
        return ColdBonus(0.0)
    trials: list[dict[str, float]] = []
    chosen = 0.0
    for bonus in BONUSES:
        ranks = _ranks(candidates, {name: {**weights, mark: bonus} for name, weights in groups.items()})
        trial = {"bonus": bonus}
        for name, metric in (("recall@10", recall), ("ndcg@10", ndcg)):
            trial[name] = round(float(metric(ranks, 10).sum()) / len(candidates), 5)
        trials.append(trial)
        first = trials[0]
        if not first["recall@10"]:
            break
        if any(trial[name] < first[name] * (1 - LOSS) for name in ("recall@10", "ndcg@10")):
            break
        chosen = bonus
    return ColdBonus(chosen, tuple(trials))


def _ranks(candidates: Candidates, groups: Mapping[str, Weights]) -> IntArray:
    """Returns the rank of the target of every answered question, by the weights of its group of users."""
    own = {candidates.groups.index(name): weights for name, weights in groups.items() if name != DEFAULT_GROUP}
    answered = np.flatnonzero(candidates.answered)
    group = candidates.group[answered] if own else np.full(len(answered), -1)
    group = np.where(np.isin(group, list(own)), group, -1)
    ranks = [
        ranks_of(block, _vector(candidates, own.get(number, groups[DEFAULT_GROUP])))
        for number in np.unique(group).tolist()
        for block in blocks_of(candidates, answered[group == number])
    ]
    return np.concatenate(ranks)


def _vector(candidates: Candidates, weights: Weights) -> Float64Array:
    return np.array([weights.get(name, 0.0) for name in candidates.names])
