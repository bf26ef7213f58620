"""From candidates to weights: everything that is decided on validation, and what speaks for it.

Nothing is decided by a difference that chance explains. Every decision compares log-likelihoods of the same held-out
questions, paired, and needs a mean gain above its standard error (`TELLING` of them for weights of a group of users).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from model.ranking.candidates import Block, CandidateTable, blocks_of
from model.ranking.held_out import FOLDS, Folds, HeldOut
from model.ranking.likelihood import Fitted, Prior, fit, log_likelihoods
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.scorers.ranker_weights import DENSE, PATH, Weights

# Precisions of the prior that are tried: from a prior that hardly counts to one that only many questions move.
PRECISIONS = (0.1, 1.0, 10.0, 100.0, 1000.0)
# Below this many questions with a candidate that answers them, nothing is learned: their standard error is itself
# uncertain. In simulations, a third of the weights learned from 50 questions was worse on new questions than those of
# the prior, and one in ten of those from 100 (docs/experiments.md, "Weights of the ranker").
LEAST_ANSWERED = 100
# Questions of a group of users below which it gets no weights of its own.
LEAST_IN_GROUP = 200
# Standard errors that a group's own weights must gain: there are several groups, so chance has several tries.
TELLING = 2.0
# Numbers of questions of the learning curve.
CURVE = (100, 300, 1000, 3000, 10_000, 30_000)

# Weights of the dense score among which that of the prior is chosen; the path has the rest of 1.
DENSE_SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25, 0.0)

Progress = Callable[[int, int], None]  # (steps done, steps in all)


@dataclass(frozen=True, eq=False)
class Learned:
    """Weights, and what they were decided by.

    Attributes:
        weights: Weight of each signal for everybody; signals of weight 0 are left out.
        groups: Weights of the groups of users that have their own.
        about: Why: prior, covariance, held-out figures, curve, ablation, as JSON holds them.
    """

    weights: Weights
    groups: Mapping[str, Weights] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


def learn(
    candidates: CandidateTable, today: Weights, positive: Sequence[str] = (), progress: Progress | None = None
) -> Learned:
    """Learns weights from the candidates of validation questions. Deterministic.

    Args:
        candidates: Questions with candidates; those whose target is no candidate are counted and left out.
        today: The prior's mean: the weights that are kept where there is nothing to learn from. A signal that is not
            named has 0.
        positive: Signals that speak for an item by what they are, such as the network's scores. Noise alone does not
            drop them, but where the weight of one would be negative it is 0.
        progress: Called after each step.

    Raises:
        LearningError: A value is not finite.
    """
    candidates.require_finite()
    mean = np.array([float(today.get(name, 0.0)) for name in candidates.names])
    answered = int(candidates.answered.sum())
    counts = {"questions": len(candidates), "answered": answered}
    if answered < LEAST_ANSWERED:
        return Learned(_named(candidates.names, mean), about={**counts, "learned": False, "prior": dict(today)})
    with threadpool_limits(1, "blas"):  # narrow matrices: more threads only wait, and sums must not depend on them
        return _Learning(candidates, mean, positive, progress).result(counts)


class _Learning:
    """One run of the procedure; the methods are its steps, in order."""

    def __init__(
        self, candidates: CandidateTable, mean: Float64Array, positive: Sequence[str], progress: Progress | None
    ) -> None:
        self.candidates, self.names, self.mean = candidates, candidates.names, mean
        self.folds = Folds(candidates)
        self.today = self.folds.judged([mean] * FOLDS)
        self._positive = [at for at, name in enumerate(self.names) if name in positive]
        self._steps, self._done, self._progress = len(PRECISIONS) + 2 * len(self.names) + 2, 0, progress

    def result(self, counts: Mapping[str, int]) -> Learned:
        precision, full = self._precision()
        today = _named(self.names, self.mean)
        held_out = {"today": self.today.figures(), "every_signal": full.figures()}
        about: dict[str, Any] = {**counts, "prior": today, "held_out": held_out}
        if not self._tells(full):
            return Learned(today, about={**about, "learned": False})
        ablation = {at: self._judge(precision, [at], full) for at in range(len(self.names))}
        dropped, kept = self._dropped(precision, full, ablation)
        held_out["learned"] = kept.figures()
        final = self._everything(precision, dropped)
        # What must not be negative was left out; too little may be left, or nothing that ranks.
        if not self._tells(kept) or not final.weights.any():
            return Learned(today, about={**about, "learned": False})
        groups, of_groups = self._groups(kept, final)
        about |= {
            "learned": True,
            "precision": precision,
            "dropped": [self.names[at] for at in dropped],
            "signals": [name for at, name in enumerate(self.names) if at not in dropped],
            "covariance": self._covariance(final, dropped),
            "groups": of_groups,
            "curve": self._curve(precision, dropped),
            "ablation": {self.names[at]: _beside(full, other) for at, other in ablation.items()},
        }
        return Learned(_named(self.names, final.weights), groups, about)

    def _tells(self, weights: HeldOut) -> bool:
        """Whether held-out questions are likelier by these weights than by today's, by more than chance explains."""
        gain, error = weights.above(self.today)
        return gain > error

    def _precision(self) -> tuple[float, HeldOut]:
        """Chooses the precision of the prior by the held-out likelihood; the stronger prior wins a tie."""
        tried: dict[float, HeldOut] = {}
        start: HeldOut | None = None
        for precision in PRECISIONS:
            tried[precision] = start = self._judge(precision, (), start)
        best = max(reversed(PRECISIONS), key=lambda precision: tried[precision].mean)
        return best, tried[best]

    def _judge(self, precision: float, without: Sequence[int], start: HeldOut | None) -> HeldOut:
        """Judges the weights that are learned without some signals."""
        prior = Prior.around(self.mean, precision, without)
        result = self.folds.judge(
            lambda fold, blocks: fit(blocks, prior, None if start is None else start.weights[fold]).weights
        )
        self._advance()
        return result

    def _dropped(self, precision: float, full: HeldOut, ablation: Mapping[int, HeldOut]) -> tuple[list[int], HeldOut]:
        """Drops the signals without which the likelihood is no lower than chance explains, the least telling first."""

        def loss(other: HeldOut) -> float:
            mean, error = full.above(other)
            return mean / max(error, 1e-12)

        dropped, kept = self._negative(precision, [], full)
        for at in sorted(set(ablation) - set(self._positive), key=lambda at: loss(ablation[at])):
            if loss(ablation[at]) >= 1:
                break
            other = self._judge(precision, [*dropped, at], kept) if dropped else ablation[at]
            if loss(other) < 1:  # against all signals: small losses do not add up
                dropped, kept = [*dropped, at], other
        dropped, kept = self._negative(precision, dropped, kept)
        return sorted(dropped), kept

    def _negative(self, precision: float, dropped: list[int], kept: HeldOut) -> tuple[list[int], HeldOut]:
        """Drops the signals whose weight would be negative although they speak for an item, the most negative first."""
        while True:
            weights = self._everything(precision, dropped).weights
            wrong = min(self._positive, key=lambda at: weights[at], default=None)
            if wrong is None or weights[wrong] >= 0:
                return dropped, kept
            dropped = [*dropped, wrong]
            kept = self._judge(precision, dropped, kept)

    def _everything(self, precision: float, dropped: Sequence[int]) -> Fitted:
        """Returns the weights from all questions."""
        return fit(self.folds.everything, Prior.around(self.mean, precision, dropped))

    def _groups(self, common: HeldOut, final: Fitted) -> tuple[dict[str, Weights], dict[str, Any]]:
        """Learns weights of each group as deviations from those of everybody; keeps those that tell."""
        kept: dict[str, Weights] = {}
        about: dict[str, Any] = {}
        for number, name in enumerate(self.candidates.groups):
            parts = [part[self.candidates.group[part] == number] for part in self.folds.parts]
            n = sum(map(len, parts))
            about[name] = {"answered": n, "own": False}
            if n < LEAST_IN_GROUP or n == len(self.folds):
                continue
            precision, gain, error = self._deviation(parts, common)
            about[name] |= {"gain": round(gain, 5), "standard_error": round(error, 5), "precision": precision}
            if gain > TELLING * error:
                blocks = blocks_of(self.candidates, np.concatenate(parts))
                own = fit(blocks, self._around(final.weights, precision)).weights
                if all(own[at] >= 0 for at in self._positive):
                    kept[name] = _named(self.names, own)
                    about[name]["own"] = True
        self._advance()
        return kept, about

    def _deviation(self, parts: Sequence[IntArray], common: HeldOut) -> tuple[float, float, float]:
        """Returns the precision of a group's deviation with the largest held-out gain, that gain, and its error."""
        blocks = [blocks_of(self.candidates, part) if len(part) else [] for part in parts]
        best = (PRECISIONS[-1], -np.inf, np.inf)
        for precision in reversed(PRECISIONS):
            gains = []
            for fold in range(FOLDS):
                others = [block for at in range(FOLDS) if at != fold for block in blocks[at]]
                everybody = common.weights[fold]
                own = fit(others, self._around(everybody, precision)).weights
                gains += [log_likelihoods(b, own) - log_likelihoods(b, everybody) for b in blocks[fold]]
            gain = np.concatenate(gains)
            if gain.mean() > best[1]:
                best = (precision, float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain))))
        return best

    def _around(self, weights: Float64Array, precision: float) -> Prior:
        """The prior of a group: around the weights of everybody; what they do not use stays unused."""
        return Prior(weights, precision, weights != 0)

    def _curve(self, precision: float, dropped: Sequence[int]) -> list[dict[str, Any]]:
        """Returns what weights from fewer questions are worth, on the same held-out questions."""
        most = len(self.folds) - len(self.folds) // FOLDS
        prior = Prior.around(self.mean, precision, dropped)
        points = []
        for n in [*(n for n in CURVE if n < most), most]:
            held_out = self.folds.judge(lambda _, blocks: fit(blocks, prior).weights, n)
            points.append({"questions": n, **held_out.figures()})
        self._advance()
        return points

    def _covariance(self, final: Fitted, dropped: Sequence[int]) -> list[list[float]]:
        free = np.array([at not in dropped for at in range(len(self.names))])
        covariance = final.covariance(free)[np.ix_(free, free)]
        return [[float(f"{x:.4g}") for x in row] for row in covariance]

    def _advance(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._steps), self._steps)


def network_prior(candidates: CandidateTable, shares: Sequence[float] = DENSE_SHARES) -> Weights:
    """Returns the weights of path and dense score, of sum 1, with the largest likelihood; among equal ones the first.

    Args:
        candidates: Questions with candidates.
        shares: Weights of the dense score to choose from; the first is taken where there are too few questions.

    Raises:
        LearningError: A value is not finite.
    """
    candidates.require_finite()
    two = candidates.only((PATH, DENSE))
    answered = np.flatnonzero(two.answered)
    if len(answered) < LEAST_ANSWERED:
        return _shared(shares[0])
    blocks: list[Block] = blocks_of(two, answered)

    def likelihood(share: float) -> float:
        return sum(float(log_likelihoods(block, np.array([1 - share, share])).sum()) for block in blocks)

    return _shared(max(shares, key=likelihood))


def _shared(dense: float) -> Weights:
    return {name: weight for name, weight in ((PATH, 1 - dense), (DENSE, dense)) if weight}


def _named(names: Sequence[str], weights: Float64Array) -> dict[str, float]:
    return {name: float(f"{weight:.6g}") for name, weight in zip(names, weights, strict=True) if weight}


def _beside(full: HeldOut, other: HeldOut) -> dict[str, Any]:
    """Returns the figures without a signal, and what its absence costs."""
    loss, error = full.above(other)
    return {**other.figures(), "loss": round(loss, 5), "standard_error": round(error, 5)}
