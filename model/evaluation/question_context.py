"""Questions asked with more than their history: what an evaluation may let a model know of the moment it asks about.

The published protocol knows nothing of that moment. A service does: it knows the user, the time and the scene, and its
caller may ask for a category or a price band. Those two are taken from the item that is looked for, as an oracle of a
user who asked for just that; so figures with them stand beside others that were given the same, never beside the
published ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.data.dataset import NO_SCENE
from model.data.split import Holdout, Split
from model.training.conditions import Conditions
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, ContextVocabulary

# What can be known; "category" and "price_band" are those of the item that is looked for.
KNOWN: tuple[str, ...] = ("features", "scene", "gap", "category", "price_band")


@dataclass(frozen=True, eq=False)
class Asking:
    """Of the question of each user (a row of the log's users): `context` [users, slots] and `gap_ms` [users] as the
    network takes them, and `allowed` [values, items], the items with each asked value, `wanted` [users] its row there.
    """

    context: IntArray
    gap_ms: IntArray
    allowed: npt.NDArray[np.bool_] | None = None
    wanted: IntArray | None = None

    def mask(self, users: IntArray) -> npt.NDArray[np.bool_] | None:
        """[users, items] what may be listed for each of them; None where that is everything."""
        return None if self.allowed is None or self.wanted is None else self.allowed[self.wanted[users]]


def asking(
    split: Split,
    holdout: Holdout,
    vocabulary: ContextVocabulary,
    conditions: Conditions,
    known: frozenset[str] = frozenset(),
    *,
    within: bool = False,
    seed: int = 0,
) -> Asking:
    """The questions of a hold-out with what is `known`; `within` lists only items of the target's category, whether
    the model was told it or not.

    A target that has several categories is asked for by one of them, drawn with `seed`: the same one whatever else is
    known. Raises ValueError for something that cannot be known.
    """
    if not known <= set(KNOWN):
        raise ValueError(f"{', '.join(sorted(known - set(KNOWN)))}: what can be known is {', '.join(KNOWN)}")
    log, users = split.sequences, holdout.users
    context = np.zeros((log.n_users, len(vocabulary.slots)), np.int64)
    gap_ms = np.full(log.n_users, GAP_UNKNOWN, np.int64)
    n_fields = len(vocabulary.fields)
    at = holdout.history_end  # the target's row
    if "features" in known:
        context[users, :n_fields] = conditions.features.numpy()[users]
    if "scene" in known:
        scene = np.full(len(users), NO_SCENE) if log.scene is None else log.scene[at]
        context[users, vocabulary.slots.index(vocabulary.SCENE)] = conditions.scenes.numpy()[scene]
    if "price_band" in known and vocabulary.PRICE in vocabulary.slots:
        context[users, vocabulary.slots.index(vocabulary.PRICE)] = conditions.prices.numpy()[holdout.target]
    if "gap" in known:
        gaps = log.time_ms[at] - log.time_ms[at - 1]
        inside = (at > log.offsets[users]) & (gaps >= 0) & (gaps <= vocabulary.max_gap_ms) & (vocabulary.max_gap_ms > 0)
        gap_ms[users] = np.where(inside, gaps, GAP_UNKNOWN)
    controls, count = conditions.controls.numpy(), conditions.n_controls.numpy()[holdout.target]
    drawn = (np.random.default_rng(seed).random(len(users)) * count).astype(np.int64)
    code = np.where(count > 0, controls[holdout.target, np.minimum(drawn, controls.shape[1] - 1)], 0)
    if "category" in known:
        context[users, vocabulary.slots.index(vocabulary.CONTROL)] = code
    if not within:
        return Asking(context, gap_ms)
    values, row = np.unique(code, return_inverse=True)
    allowed = np.stack([(controls == value).any(axis=1) if value else np.ones(len(controls), bool) for value in values])
    wanted = np.zeros(log.n_users, np.int64)
    wanted[users] = row
    return Asking(context, gap_ms, allowed, wanted)
