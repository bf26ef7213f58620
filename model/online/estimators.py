"""Off-policy estimates: what lists of another policy would have earned, from lists of this one.

All but one rest on the item–position model: what a position earns depends on the item that is there, and on nothing
else of the list (Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, Offline evaluation of ranking policies with
click models, KDD 2018). The weight of a position is then w = P_target(item at position) ÷ P_logged(item at position),
with the reward c of the position:

    ips        mean over lists of Σ_p w c
    snips      Σ_p of (Σ w c ÷ Σ w), self-normalised at each position (Swaminathan and Joachims, NIPS 2015)
    dr         mean over lists of Σ_p [Σ_i P_target(i at p) r(i, p) + w (c − r(shown, p))], doubly robust (Dudík,
               Langford and Li, ICML 2011); the reward model r was learned on other subjects (`reward_model.py`)
    list_ips   mean over lists of W Σ_p c, W = P_target(list) ÷ P_logged(list): needs no model of clicks, but its
               variance grows exponentially with the length, so it is for lists of up to three

Every estimate is linear in the subjects up to terms of higher order, and comes as its value and each subject's
influence on it. Intervals follow from the variance of the influences, so lists of one subject count as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import stats

from service.artifact.array_types import BoolArray, Float64Array, IntArray

Estimator = Literal["ips", "snips", "dr", "list_ips"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
# Longest lists that whole-list weights are for.
WHOLE_LIST_MAX = 3
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What estimates need of L lists of up to K positions.

    Attributes:
        subject: [L] number of the subject, below `subjects`.
        subjects: Number of subjects.
        valid: [L, K] whether the list has the position.
        weight: [L, K] w; 0 where not valid.
        reward: [L, K] c; 0 where not valid.
        predicted: [L, K] r of the shown item; 0 where not valid.
        expected: [L] Σ_p Σ_i P_target(i at p) r(i, p).
        list_weight: [L] W; None for longer lists.
    """

    subject: IntArray
    subjects: int
    valid: BoolArray
    weight: Float64Array
    reward: Float64Array
    predicted: Float64Array
    expected: Float64Array
    list_weight: Float64Array | None = None

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """The estimators that these lists allow."""
        return ESTIMATORS if self.list_weight is not None else ESTIMATORS[:-1]

    def by_subject(self, of_list: Float64Array) -> Float64Array:
        """Returns the sums [subjects] of a value of each list [L]."""
        return np.asarray(np.bincount(self.subject, of_list, self.subjects), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Influenced:
    """A value, and the influence [subjects] of each subject on it. Linear combinations of them are exact.

    Attributes:
        value: The estimate.
        influence: Sums to 0 over the subjects.
        clusters: Number of subjects that it rests on.
    """

    value: float
    influence: Float64Array
    clusters: int

    def minus(self, other: Influenced) -> Influenced:
        """Returns the difference."""
        clusters = max(self.clusters, other.clusters)
        return Influenced(self.value - other.value, self.influence - other.influence, clusters)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Returns both ends, by Student's t; None where nothing varies or where there are fewer than two subjects."""
        squares = float((self.influence**2).sum())
        if self.clusters < 2 or squares <= 0.0:
            return None
        error = math.sqrt(self.clusters / (self.clusters - 1) * squares)
        half = float(stats.t.ppf((1 + confidence) / 2, self.clusters - 1)) * error
        return self.value - half, self.value + half


def weighted_mean(parts: Mapping[str, Influenced], shares: Mapping[str, Influenced]) -> Influenced:
    """Returns Σ share · part ÷ Σ share, with the errors of the shares.

    Args:
        parts: Estimates over the same subjects, by the name of the part.
        shares: Share of each part, estimated over these subjects as well.
    """
    total = sum(shares[name].value for name in parts)
    value = sum(shares[name].value * part.value for name, part in parts.items()) / total
    of_parts = [
        shares[name].value * part.influence + (part.value - value) * shares[name].influence
        for name, part in parts.items()
    ]
    influence = np.sum(of_parts, axis=0) / total
    return Influenced(value, influence, int(np.count_nonzero(influence)))


def estimate(terms: Terms, estimator: Estimator) -> Influenced:
    """Returns an estimate of what a list of the target policy earns.

    Raises:
        ValueError: There are no lists, or whole-list weights are missing.
    """
    if not len(terms.subject):
        raise ValueError("there are no lists to estimate from")
    if estimator == "snips":
        return _self_normalised(terms)
    return mean(terms, _of_list(terms, estimator))


def mean(terms: Terms, of_list: Float64Array) -> Influenced:
    """Returns the mean of a value of each list [L], which is a ratio over subjects."""
    n = len(of_list)
    value = float(of_list.sum() / n)
    clusters = int(np.count_nonzero(np.bincount(terms.subject, minlength=terms.subjects)))
    return Influenced(value, terms.by_subject((of_list - value) / n), clusters)


def _of_list(terms: Terms, estimator: Estimator) -> Float64Array:
    if estimator == "ips":
        return np.asarray((terms.weight * terms.reward).sum(axis=1))
    if estimator == "dr":
        return np.asarray(terms.expected + (terms.weight * (terms.reward - terms.predicted)).sum(axis=1))
    if terms.list_weight is None:
        raise ValueError(f"whole-list weights are for lists of at most {WHOLE_LIST_MAX}")
    return np.asarray(terms.list_weight * terms.reward.sum(axis=1))


def _self_normalised(terms: Terms) -> Influenced:
    """Σ_p (share of lists with position p) · (Σ w c ÷ Σ w), and its linearisation."""
    n = len(terms.subject)
    valid = terms.valid.astype(np.float64)
    share, total = valid.mean(axis=0), terms.weight.sum(axis=0)
    safe = np.where(total > 0, total, 1.0)
    rate = (terms.weight * terms.reward).sum(axis=0) / safe
    influence = share * terms.weight * (terms.reward - rate) / safe + (valid - share) * rate / n
    clusters = int(np.count_nonzero(np.bincount(terms.subject, minlength=terms.subjects)))
    return Influenced(float(share @ rate), terms.by_subject(influence.sum(axis=1)), clusters)


def effective_sample(terms: Terms) -> float:
    """Returns Kish's effective number of subjects, (Σ W)² ÷ Σ W², where W are the weights of a subject's positions."""
    weights = terms.by_subject(terms.weight.sum(axis=1))
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def effective_lists(terms: Terms) -> float:
    """Returns the same of whole-list weights; 0 without them."""
    if terms.list_weight is None:
        return 0.0
    weights = terms.by_subject(terms.list_weight)
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0
