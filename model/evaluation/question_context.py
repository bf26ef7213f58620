"""Questions with more than a history: what an evaluation tells a model about the request.

The published protocol tells nothing. A service knows the user, the time and the scene, and its caller may name a
category, a price band or a style. These are taken from the target item, like an oracle of a user who asks for just
that. Compare figures with them only with figures of systems that knew the same, never with published ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.data.dataset import NO_SCENE
from model.data.split import Holdout, Split
from model.training.conditions import Conditions
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, ContextVocabulary, quantised_gap_ms

# What a question can know; category, price band and style are those of the target.
KNOWN: tuple[str, ...] = ("features", "scene", "gap", "category", "price_band", "style")


@dataclass(frozen=True, eq=False)
class QuestionContext:
    """What the question of each user knows. Users are rows of the log.

    Attributes:
        context: [users, slots] context rows.
        gap_ms: [users] milliseconds between the last event and the target, `GAP_UNKNOWN` where unknown.
        allowed: [categories, items] bool, the items of each category that lists are restricted to; None without limits.
        allowed_row: [users] row of `allowed` of each user.
    """

    context: IntArray
    gap_ms: IntArray
    allowed: npt.NDArray[np.bool_] | None = None
    allowed_row: IntArray | None = None

    def mask(self, users: IntArray) -> npt.NDArray[np.bool_] | None:
        """Returns the items that may be listed for each of the users [users, items]; None without limits."""
        return None if self.allowed is None or self.allowed_row is None else self.allowed[self.allowed_row[users]]


def question_context(
    split: Split,
    holdout: Holdout,
    vocabulary: ContextVocabulary,
    conditions: Conditions,
    known: frozenset[str] = frozenset(),
    *,
    within: bool = False,
    seed: int = 0,
) -> QuestionContext:
    """Returns what the questions of a hold-out part know.

    For a target with several categories one is drawn, the same one whatever else is known.

    Args:
        split: The split.
        holdout: Its part with the questions.
        vocabulary: The model's context vocabulary.
        conditions: Context rows of the log's users, scenes and items.
        known: Which of `KNOWN` the model gets.
        within: Whether lists contain only items of the target's category, even if the model does not get it.
        seed: Seed of the drawn categories.

    Raises:
        ValueError: `known` names something else.
    """
    if not known <= set(KNOWN):
        raise ValueError(f"unknown: {', '.join(sorted(known - set(KNOWN)))}; choose from {', '.join(KNOWN)}")
    log, users = split.sequences, holdout.users
    context = np.zeros((log.n_users, len(vocabulary.slots)), np.int64)
    gap_ms = np.full(log.n_users, GAP_UNKNOWN, np.int64)
    n_fields = len(vocabulary.fields)
    target_event = holdout.history_end  # index in the flat arrays
    if "features" in known:
        context[users, :n_fields] = conditions.features.numpy()[users]
    if "scene" in known:
        scene = np.full(len(users), NO_SCENE) if log.scene is None else log.scene[target_event]
        context[users, vocabulary.slots.index(vocabulary.SCENE)] = conditions.scenes.numpy()[scene]
    if "price_band" in known and vocabulary.PRICE in vocabulary.slots:
        context[users, vocabulary.slots.index(vocabulary.PRICE)] = conditions.prices.numpy()[holdout.target]
    if "gap" in known:
        gaps = log.time_ms[target_event] - log.time_ms[target_event - 1]
        has_history = target_event > log.offsets[users]
        inside = has_history & (gaps >= 0) & (gaps <= vocabulary.max_gap_ms) & (vocabulary.max_gap_ms > 0)
        gap_ms[users] = np.where(inside, quantised_gap_ms(gaps), GAP_UNKNOWN)  # as the service reads it
    controls, count = conditions.controls.numpy(), conditions.n_controls.numpy()[holdout.target]
    drawn = (np.random.default_rng(seed).random(len(users)) * count).astype(np.int64)
    code = np.where(count > 0, controls[holdout.target, np.minimum(drawn, controls.shape[1] - 1)], 0)
    if "style" in known and vocabulary.STYLE in vocabulary.slots:
        styles, of_target = conditions.styles.numpy(), conditions.n_styles.numpy()[holdout.target]
        one = (np.random.default_rng(seed + 1).random(len(users)) * of_target).astype(np.int64)
        rows = styles[holdout.target, np.minimum(one, styles.shape[1] - 1)]
        context[users, vocabulary.slots.index(vocabulary.STYLE)] = np.where(of_target > 0, rows, 0)
    if "category" in known:
        context[users, vocabulary.slots.index(vocabulary.CONTROL)] = code
    if not within:
        return QuestionContext(context, gap_ms)
    values, row = np.unique(code, return_inverse=True)
    allowed = np.stack([(controls == value).any(axis=1) if value else np.ones(len(controls), bool) for value in values])
    allowed_row = np.zeros(log.n_users, np.int64)
    allowed_row[users] = row
    return QuestionContext(context, gap_ms, allowed, allowed_row)
