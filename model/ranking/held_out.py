"""Cross-validation over questions: each question is judged by weights that were learned from the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from model.evaluation.metrics import ndcg, recall
from model.ranking.candidates import Block, CandidateTable, blocks_of
from model.ranking.likelihood import log_likelihoods, scores
from service.artifact.array_types import Float64Array, IntArray

FOLDS = 5

# (number of the fold, blocks to learn from) → weights
Learn = Callable[[int, list[Block]], Float64Array]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What weights are worth on questions they were not learned from.

    Attributes:
        log_likelihood: [answered] of each answered question's target.
        rank: [answered] 0-based rank of the target among its candidates; after all that score the same.
        questions: Number of questions, with those that no candidate answers.
        weights: [folds] the weights that were learned without each fold.
    """

    log_likelihood: Float64Array
    rank: IntArray
    questions: int
    weights: tuple[Float64Array, ...]

    @property
    def mean(self) -> float:
        """Mean log-likelihood of an answered question."""
        return float(self.log_likelihood.mean())

    def above(self, other: HeldOut) -> tuple[float, float]:
        """Returns the mean gain in log-likelihood over `other`, paired by question, and its standard error."""
        gain = self.log_likelihood - other.log_likelihood
        return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else np.inf

    def figures(self) -> dict[str, Any]:
        """Returns the mean log-likelihood, and NDCG@10 and recall@10 over all questions, answered or not."""
        return {
            "log_likelihood": round(self.mean, 5),
            "ndcg@10": round(float(ndcg(self.rank, 10).sum()) / self.questions, 5),
            "recall@10": round(float(recall(self.rank, 10).sum()) / self.questions, 5),
        }


class Folds:
    """The answered questions in `FOLDS` parts, drawn with a fixed seed."""

    def __init__(self, candidates: CandidateTable) -> None:
        answered = np.flatnonzero(candidates.answered)
        self.questions = len(candidates)
        self.order: IntArray = np.random.default_rng(0).permutation(answered)
        self.parts = np.array_split(self.order, FOLDS)
        self.blocks = [blocks_of(candidates, part) for part in self.parts]

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def everything(self) -> list[Block]:
        """All answered questions."""
        return [block for part in self.blocks for block in part]

    def without(self, fold: int, limit: int | None = None) -> list[Block]:
        """Returns the questions of all other folds, or the first `limit` of them."""
        others = [block for at in range(1, FOLDS) for block in self.blocks[(fold + at) % FOLDS]]
        if limit is None:
            return others
        kept = []
        for block in others:
            kept.append(block.head(limit))
            limit -= len(kept[-1])
            if limit <= 0:
                break
        return kept

    def judge(self, learn: Learn, limit: int | None = None) -> HeldOut:
        """Learns weights without each fold, from at most `limit` questions, and judges them on it."""
        weights = tuple(learn(fold, self.without(fold, limit)) for fold in range(FOLDS))
        return self.judged(weights)

    def judged(self, weights: Sequence[Float64Array]) -> HeldOut:
        """Judges given weights, those of a fold on its questions."""
        likelihoods, ranks = [], []
        for blocks, w in zip(self.blocks, weights, strict=True):
            likelihoods += [log_likelihoods(block, w) for block in blocks]
            ranks += [ranks_of(block, w) for block in blocks]
        return HeldOut(np.concatenate(likelihoods), np.concatenate(ranks), self.questions, tuple(weights))


def ranks_of(block: Block, weights: Float64Array) -> IntArray:
    """Returns the 0-based rank of each question's target among its candidates, after all that score the same."""
    z = scores(block, weights)
    not_below = z >= np.repeat(z[block.target], block.length)
    return np.add.reduceat(not_below.astype(np.int64), block.starts) - 1
