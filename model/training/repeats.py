"""Whether lists hold items that the user had before, where the configuration leaves it open.

Two things must be true of the validation questions. Enough of their targets were in the user's history
(`LEAST_REPEATS`), and a plain list that may hold the history finds more of them than one that may not: where people
seldom take the same again, or where nobody can tell which of a thousand own items comes back, leaving the history out
frees places for items that are new to the user.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from model.data.long_histories import REPEAT_EVENTS
from model.data.split import Split
from model.training.config import TrainConfig
from service.artifact.array_types import Float64Array, IntArray

# Share of the targets that must be in the history.
LEAST_REPEATS = 0.1
# Standard errors that the gain must exceed.
_TELLING = 2.0
# Questions looked at.
_MOST_QUESTIONS = 5000
_LENGTH = 10
# Weight of an own event relative to the one after it.
_DECAY = 0.95


@dataclass(frozen=True, slots=True)
class Repeats:
    """What validation says about items that are taken again.

    Attributes:
        kept: Whether lists hold items of the history.
        share: Share of the targets that were in the history.
        questions: Number of questions looked at.
        ndcg_at_10_kept: NDCG@10 of plain lists that may hold the history: own items and popularity, mixed by `share`.
        ndcg_at_10_excluded: NDCG@10 of popularity without the history.
        by_rule: Whether the rule decided.
    """

    kept: bool
    share: float
    questions: int
    ndcg_at_10_kept: float
    ndcg_at_10_excluded: float
    by_rule: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, for a run and the manifest of its artefact."""
        return asdict(self)


def resolve_repeats(config: TrainConfig, split: Split) -> tuple[TrainConfig, Repeats]:
    """Returns the configuration with `repeats` decided, and what it was decided by; a value set by hand stays."""
    found = judge_repeats(split)
    if config.repeats is not None:
        return config, replace(found, kept=config.repeats, by_rule=False)
    return replace(config, repeats=found.kept), found


def judge_repeats(split: Split) -> Repeats:
    """Applies the rule to the validation questions of a split."""
    log = split.sequences
    questions = split.valid.sample(_MOST_QUESTIONS)
    popularity = np.bincount(split.train.item, minlength=log.n_items) / max(1, len(split.train.item))
    order = np.argsort(-popularity, kind="stable")
    histories = [log.item[split.history(questions, i)] for i in range(len(questions))]
    repeated = [bool((items == target).any()) for items, target in zip(histories, questions.target, strict=True)]
    share = float(np.mean(repeated)) if repeated else 0.0
    own = [_own(items[-REPEAT_EVENTS:]) for items in histories]
    kept, excluded = np.zeros(len(own)), np.zeros(len(own))
    for i, (target, (items, weight)) in enumerate(zip(questions.target, own, strict=True)):
        new = order[: _LENGTH + len(items)]
        new = new[~np.isin(new, items)][:_LENGTH]
        excluded[i] = _gain(new, target)
        both = np.concatenate([items, new])
        score = share * np.concatenate([weight, np.zeros(len(new))]) + (1 - share) * popularity[both]
        kept[i] = _gain(both[np.argsort(-score, kind="stable")[:_LENGTH]], target)
    return Repeats(
        kept=share >= LEAST_REPEATS and _tells(kept - excluded),
        share=round(share, 4),
        questions=len(own),
        ndcg_at_10_kept=round(float(kept.mean()), 4) if len(own) else 0.0,
        ndcg_at_10_excluded=round(float(excluded.mean()), 4) if len(own) else 0.0,
        by_rule=True,
    )


def _own(events: IntArray) -> tuple[IntArray, Float64Array]:
    """Returns the distinct items of a history, and the share of each in its events, the newer the heavier."""
    items, of = np.unique(events, return_inverse=True)
    weight = np.bincount(of, _DECAY ** np.arange(len(events))[::-1], minlength=len(items))
    return items, weight / max(float(weight.sum()), 1e-12)


def _gain(listed: IntArray, target: int) -> float:
    """Returns the NDCG of a list with one target."""
    place = np.flatnonzero(listed == target)
    return float(1 / np.log2(place[0] + 2)) if len(place) else 0.0


def _tells(gain: Float64Array) -> bool:
    """Returns whether the mean gain is above chance."""
    if len(gain) < 2:
        return False
    return float(gain.mean()) > _TELLING * float(gain.std(ddof=1)) / math.sqrt(len(gain))
