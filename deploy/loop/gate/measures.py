"""What is measured of the lists of two artefacts: quality, calibration, overlap, cold start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploy.loop.gate.lists import Contender, Listed
from deploy.loop.gate.questions import Question
from model.evaluation import metrics
from model.evaluation.bootstrap import Interval, paired_bootstrap
from service.artifact.array_types import Float64Array, IntArray
from service.watch.statistics import softmax

K = 10
# Bins of equally many questions, because there are few; the watch of the service counts in bins of equal width.
BINS = 10
# Inverse temperatures among which the slope is found.
_LEAST_SLOPE, _MOST_SLOPE, _HALVINGS = 1e-3, 20.0, 40


@dataclass(frozen=True, slots=True)
class Pair:
    """One measure of both artefacts, and the paired difference with its 95 % interval; None where nobody was asked."""

    candidate: float
    champion: float
    interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Returns the figures."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well the softmax of the listed scores says what comes next, over questions whose answer is listed.

    Attributes:
        error: Expected calibration error of the first item (Guo et al., 2017): the mean distance of its probability
            from the share of questions where it came next, over bins with as many questions each.
        slope: Factor by which the scores explain the answers best; 1 is calibrated, less is overconfident.
        answered: Number of these questions.
    """

    error: float
    slope: float
    answered: int


def quality(questions: Sequence[Question], candidate: Sequence[Listed], champion: Sequence[Listed]) -> dict[str, Pair]:
    """Returns NDCG@10 and recall@10 of both; a target that an artefact does not know counts as missed."""
    ours, theirs = (_ranks(questions, listed) for listed in (candidate, champion))
    users = np.array([question.user for question in questions], np.int64)
    return {
        "ndcg@10": _pair(metrics.ndcg(ours, K), metrics.ndcg(theirs, K), users),
        "recall@10": _pair(metrics.recall(ours, K), metrics.recall(theirs, K), users),
    }


def _pair(candidate: Float64Array, champion: Float64Array, users: IntArray) -> Pair:
    if not len(users):
        return Pair(math.nan, math.nan, None)
    interval = paired_bootstrap(candidate, champion, cluster=users)
    return Pair(float(candidate.mean()), float(champion.mean()), interval)


def _ranks(questions: Sequence[Question], listed: Sequence[Listed]) -> IntArray:
    """[questions] 0-based rank of the target, `NOT_RANKED` where it is not listed."""
    places = [
        one.items.index(question.target) if question.target in one.items else metrics.NOT_RANKED
        for question, one in zip(questions, listed, strict=True)
    ]
    return np.array(places, np.int64)


def calibration(questions: Sequence[Question], listed: Sequence[Listed]) -> Calibration:
    """Returns how well the scores of an artefact say what comes next."""
    ranks = _ranks(questions, listed)
    kept = [(one.scores.astype(np.float64), int(r)) for one, r in zip(listed, ranks, strict=True) if r >= 0]
    if not kept:
        return Calibration(math.nan, math.nan, 0)
    first = np.array([float(softmax(scores)[0]) for scores, _ in kept])
    came = np.array([rank == 0 for _, rank in kept], np.float64)
    parts = np.array_split(np.argsort(first, kind="stable"), min(BINS, len(kept)))
    error = sum(len(part) * abs(first[part].mean() - came[part].mean()) for part in parts) / len(kept)
    return Calibration(float(error), _slope(kept), len(kept))


def _slope(kept: Sequence[tuple[Float64Array, int]]) -> float:
    """Returns the factor of the scores with the largest likelihood: where its derivative, which falls, is 0."""
    low, high = math.log(_LEAST_SLOPE), math.log(_MOST_SLOPE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        factor = math.exp(middle)
        gain = sum(float(scores[rank] - softmax(factor * scores) @ scores) for scores, rank in kept)
        low, high = (middle, high) if gain > 0 else (low, middle)
    return math.exp((low + high) / 2)


def overlap(candidate: Sequence[Listed], champion: Sequence[Listed]) -> float:
    """Returns the mean share of the champion's first ten that the candidate's first ten have as well."""
    shares = [
        len(set(ours.items[:K]) & set(theirs.items[:K])) / max(1, len(theirs.items[:K]))
        for ours, theirs in zip(candidate, champion, strict=True)
    ]
    return float(np.mean(shares)) if shares else math.nan


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Lists of new users and places of new items.

    Attributes:
        new_users: Recall@10 of the first events of users without earlier ones.
        new_items: Items that the candidate knows and the champion does not.
        listed: How many of them are among the first ten of a list.
        asked: Held-out events whose target is one of them.
        found: How many of these targets the candidate lists among its first ten.
    """

    new_users: Pair
    new_items: int
    listed: int
    asked: int
    found: int

    def to_json(self) -> dict[str, Any]:
        """Returns the figures."""
        return asdict(self)


def cold_start(
    candidate: Contender,
    champion: Contender,
    held_out: tuple[Sequence[Question], Sequence[Listed]],
    new_users: tuple[Sequence[Question], Sequence[Listed], Sequence[Listed]],
) -> ColdStart:
    """Measures cold start.

    Args:
        candidate: The new artefact.
        champion: The artefact in service.
        held_out: The held-out questions, and the candidate's lists.
        new_users: The questions of new users, the candidate's and the champion's lists.
    """
    new = {item for item in candidate.item_ids if not champion.knows(item)}
    shown = [*held_out[1], *new_users[1]]
    listed = new & {item for one in shown for item in one.items[:K]}
    asked = [(q, one) for q, one in zip(*held_out, strict=True) if q.target in new]
    found = sum(q.target in one.items[:K] for q, one in asked)
    pair = quality(*new_users)["recall@10"] if new_users[0] else Pair(math.nan, math.nan, None)
    return ColdStart(pair, len(new), len(listed), len(asked), found)
