"""The bonus of cold items: how much is added to the score of items without training events.

Stand-ins tell where such an item belongs among its like, but nothing in a log tells how much it should be held against
an item that nobody has taken. Validation questions are of the same log, so nearly all their targets have events: they
cannot show what a bonus gains, only what it costs all other lists. So the bonus is no optimum but a budget: the largest
that lowers recall@10 and NDCG@10 of validation by at most `LOSS`. Where content tells little, a bonus of 0 costs too
much against keeping all cold items out; then it is negative. New items are shown, and the log of the next training has
what users made of them. (Questions for items held out with all their events would show the gain too, but need a
training without them; `loadtests.quality.cold` measures it so.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
from scipy.optimize import nnls

from model.evaluation.metrics import ndcg, recall
from model.ranking.candidates import CandidateTable, blocks_of
from model.ranking.held_out import ranks_of
from model.ranking.learning import LEAST_ANSWERED, Learned, Progress, learn
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, Weights
from service.artifact.scorers.signal_files import COLD

# Bonuses that are tried, in log-probabilities: first against 0, or, where 0 costs too much, against the one that keeps
# all cold items out.
BONUSES = tuple(step / 10 for step in range(11))
OUT = -20.0
BELOW = (-4.0, -3.0, -2.0, -1.5, -1.0, -0.75, -0.5, -0.25)
# Share of recall@10 and of NDCG@10 that a bonus may cost.
LOSS = 0.01
MEASURES = {"recall@10": recall, "ndcg@10": ndcg}


@dataclass(frozen=True)
class ColdBonus:
    """The bonus, and the trials that it was chosen by.

    Attributes:
        bonus: What is added to the score of each cold item.
        trials: Bonus, recall@10 and NDCG@10 of each trial, and the share of both that it costs, smoothed for those
            above 0.
    """

    bonus: float
    trials: tuple[Mapping[str, float], ...] = ()

    def added_to(self, weights: Weights) -> Weights:
        """Returns weights with that of the mark of cold items, which is the bonus."""
        return {**weights, COLD: self.bonus} if self.bonus else weights

    def to_json(self) -> dict[str, Any]:
        """Returns what the manifest says of it."""
        return {"bonus": self.bonus, "loss_allowed": LOSS, "trials": [dict(trial) for trial in self.trials]}


def learn_with_bonus(
    candidates: CandidateTable, today: Weights, positive: Sequence[str] = (), progress: Progress | None = None
) -> Learned:
    """Learns the weights of all signals, and then chooses the bonus of cold items, which no likelihood tells.

    The bonus is a decision of its own: there may be one although the weights are today's. The entry `cold` of `about`
    says what it was decided by; there is none where the candidates have no mark of cold items.

    Args:
        candidates: Validation questions with candidates.
        today: As for `learn`; likewise the rest.
        positive: Signals that speak for an item by what they are.
        progress: Called after each step of the learning.

    Raises:
        LearningError: A value is not finite.
    """
    if COLD not in candidates.names:
        return learn(candidates, today, positive, progress)
    learned = learn(candidates.only([name for name in candidates.names if name != COLD]), today, positive, progress)
    bonus = choose_bonus(candidates, {DEFAULT_GROUP: learned.weights, **learned.groups})
    return replace(
        learned,
        weights=bonus.added_to(learned.weights),
        groups={name: bonus.added_to(weights) for name, weights in learned.groups.items()},
        about={**learned.about, COLD: bonus.to_json()},
    )


def choose_bonus(candidates: CandidateTable, groups: Mapping[str, Weights]) -> ColdBonus:
    """Returns the largest bonus that costs little, as all smaller ones do.

    A bonus above 0 may cost at most `LOSS` against 0. It moves single targets out of the first ten, so what it costs is
    smoothed over all of them: it is taken for c₁·b + c₂·b² with c ≥ 0 (least squares). What was counted may be twice
    `LOSS`. A bonus of 0 or less is compared with keeping all cold items out, and costs too much if the loss exceeds
    `LOSS` by more than its standard error, paired by question.

    Args:
        candidates: Validation questions with candidates, and the mark of cold items.
        groups: Weights of the other signals, by group of users; the first is `default`.

    Returns:
        The bonus; 0 if there are too few questions to tell, or none that is answered among the first ten.
    """
    if int(candidates.answered.sum()) < LEAST_ANSWERED:
        return ColdBonus(0.0)
    out, *tried = (_values(candidates, groups, bonus) for bonus in (OUT, *BONUSES))
    if not out[:, 0].any() or not tried[0][:, 0].any():
        return ColdBonus(0.0)
    n = len(candidates)
    if not _affordable(out, tried[0], n):
        below = [_values(candidates, groups, bonus) for bonus in BELOW]
        found = [values.sum(axis=0) / n for values in (out, *below)]
        losses = [1 - figures / found[0] for figures in found]
        return _largest([OUT, *BELOW], found, losses, [_affordable(out, values, n) for values in below])
    found = [values.sum(axis=0) / n for values in tried]
    counted = 1 - np.array(found) / found[0]
    smooth = np.column_stack([_smoothed(loss) for loss in counted.T])
    ok = [bool((a <= LOSS).all() and (b <= 2 * LOSS).all()) for a, b in zip(smooth, counted, strict=True)]
    return _largest(BONUSES, found, list(smooth), ok[1:])


def _affordable(before: Float64Array, after: Float64Array, n_questions: int) -> bool:
    """Returns whether what is lost, of values [answered, measures], may be `LOSS`, give or take a standard error."""
    lost = before - after
    error = np.sqrt((lost**2).sum(axis=0) - lost.sum(axis=0) ** 2 / n_questions)
    return bool((lost.sum(axis=0) - error <= LOSS * before.sum(axis=0)).all())


def _largest(
    bonuses: Sequence[float], found: Sequence[Float64Array], lost: Sequence[Float64Array], ok: Iterable[bool]
) -> ColdBonus:
    """Returns the last bonus before the first that is not `ok`; the first of all needs no leave."""
    trials = [
        {"bonus": bonus}
        | {name: round(float(value), 5) for name, value in zip(MEASURES, values, strict=True)}
        | {f"{name}_lost": round(float(loss), 5) for name, loss in zip(MEASURES, losses, strict=True)}
        for bonus, values, losses in zip(bonuses, found, lost, strict=True)
    ]
    return ColdBonus(bonuses[len(list(takewhile(bool, ok)))], tuple(trials))


def _smoothed(loss: Float64Array) -> Float64Array:
    """Returns the losses of all bonuses as the nearest c₁·b + c₂·b² with c ≥ 0."""
    b = np.array(BONUSES)
    powers = np.column_stack([b, b**2])
    smooth: Float64Array = powers @ nnls(powers, loss)[0]
    return smooth


def _values(candidates: CandidateTable, groups: Mapping[str, Weights], bonus: float) -> Float64Array:
    """Returns the `MEASURES` [answered, measures] of every answered question with a bonus."""
    ranks = _ranks(candidates, {name: {**weights, COLD: bonus} for name, weights in groups.items()})
    return np.column_stack([metric(ranks, 10) for metric in MEASURES.values()]).astype(np.float64)


def _ranks(candidates: CandidateTable, groups: Mapping[str, Weights]) -> IntArray:
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


def _vector(candidates: CandidateTable, weights: Weights) -> Float64Array:
    return np.array([weights.get(name, 0.0) for name in candidates.names])
