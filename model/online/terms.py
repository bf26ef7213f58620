"""Weights, rewards and predictions of logged lists under another policy: what the estimators take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.online.estimators import WHOLE_LIST_MAX, Terms
from model.online.logged_lists import ItemNumbers, LoggedList, law_of
from model.online.marginals import Law, all_marginals, conditionals, log_weights
from model.online.reward_model import FOLDS, RewardModel, fit_folds
from model.online.targets import Drawn, Target
from service.artifact.array_types import Float64Array, IntArray
from service.engine.decode.draws import nucleus

# Lists whose marginals are computed together.
_BATCH = 256


@dataclass(frozen=True, slots=True, eq=False)
class TermsOfLists:
    """Terms, and the share of the target's positions that hold items which the log could not have drawn there.

    Attributes:
        terms: What the estimators take.
        undecoded: Number of lists that the target could not decode again.
        outside: That share; None where the target has candidates of its own.
    """

    terms: Terms
    undecoded: int
    outside: float | None


def terms_of(lists: Sequence[LoggedList], target: Target, numbers: ItemNumbers, subjects: int) -> TermsOfLists:
    """Returns the terms of lists under a policy; lists that the target cannot decode are left out.

    Args:
        lists: Drawn lists.
        target: The policy.
        numbers: Numbers of the items of the log.
        subjects: Number of subjects.

    Raises:
        LogError: The target does not fit the lists.
    """
    models = _reward_models(lists, numbers)
    rows: dict[int, _Row] = {}
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(lists):
        by_length[len(one.shown)].append(place)
    for drawn, places in by_length.items():
        for start in range(0, len(places), _BATCH):
            batch = places[start : start + _BATCH]
            rows.update(zip(batch, _rows([lists[i] for i in batch], target, drawn, models, numbers), strict=True))
    kept = [(lists[place], row) for place, row in sorted(rows.items()) if row.decoded]
    return _together([one for one, _ in kept], [row for _, row in kept], subjects, len(lists) - len(kept))


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """What one list contributes."""

    decoded: bool
    weight: Float64Array
    predicted: Float64Array
    expected: float = 0.0
    outside: float | None = None
    list_weight: float | None = None


_UNDECODED = _Row(False, np.zeros(0), np.zeros(0))


def _reward_models(lists: Sequence[LoggedList], numbers: ItemNumbers) -> Sequence[RewardModel]:
    items = [numbers.of_ids(one.items[: len(one.shown)]) for one in lists]
    longest = max((len(one.shown) for one in lists), default=1)
    return fit_folds(
        np.concatenate([np.full(len(one.shown), one.owner % FOLDS) for one in lists]),
        np.concatenate(items),
        np.concatenate([np.arange(len(one.shown)) for one in lists]),
        np.concatenate([log_weights(one.scores, Law())[one.shown] for one in lists]),
        np.concatenate([one.reward[: len(one.shown)] for one in lists]),
        len(numbers.by_id),
        longest,
    )


def _rows(
    lists: Sequence[LoggedList], target: Target, drawn: int, models: Sequence[RewardModel], numbers: ItemNumbers
) -> list[_Row]:
    """The contributions of lists of one length."""
    found = target.of(lists, numbers)
    there = [(one, drawing) for one, drawing in zip(lists, found, strict=True) if drawing is not None]
    logged = all_marginals(
        [one.scores for one, _ in there], [law_of(one.decoding) for one, _ in there], drawn,
        [one.shown for one, _ in there],
    )  # fmt: skip
    judged = all_marginals([d.scores for _, d in there], [d.law for _, d in there], drawn)
    rows = iter(
        [_row(one, d, p0, p, models[one.owner % FOLDS]) for (one, d), p0, p in zip(there, logged, judged, strict=True)]
    )
    return [_UNDECODED if drawing is None else next(rows) for drawing in found]


def _row(one: LoggedList, drawn: Drawn, logged: Float64Array, judged: Float64Array, model: RewardModel) -> _Row:
    """The contribution of one list; positions that were not drawn would be the same under any policy."""
    n, positions = len(one.shown), np.arange(len(one.shown))
    wanted = np.zeros(n)
    reached = (drawn.shown >= 0) & (positions < judged.shape[1])
    wanted[reached] = judged[drawn.shown[reached], positions[reached]]
    plain = log_weights(drawn.scores, Law())
    r = model.predict(drawn.items, plain, judged.shape[1])
    predicted = np.zeros(len(one.items))
    # The shown item is predicted from what the target knows of it, so that both terms speak of one function.
    predicted[positions[reached]] = r[drawn.shown[reached], positions[reached]]
    weight = np.ones(len(one.items))
    weight[:n] = wanted / logged[one.shown, positions]
    return _Row(
        decoded=True,
        weight=weight,
        predicted=predicted,
        expected=float((judged * r).sum()),
        outside=_outside(one, judged) if drawn.same else None,
        list_weight=_list_weight(one, drawn) if len(one.items) <= WHOLE_LIST_MAX else None,
    )


def _outside(one: LoggedList, judged: Float64Array) -> float:
    """The share of the target's positions whose items the log could not have drawn there."""
    law = law_of(one.decoding)
    inside = nucleus(log_weights(one.scores, law), law.nucleus)
    size = int(inside.sum())
    return float((judged[~inside, :size].sum() + judged[inside, size:].sum()) / judged.shape[1])


def _list_weight(one: LoggedList, drawn: Drawn) -> float:
    """P_target(list) ÷ P_logged(list)."""
    if (drawn.shown < 0).any():
        return 0.0
    logged = float(conditionals(one.scores, law_of(one.decoding), one.shown).sum())
    if drawn.law.sampled:
        return float(np.exp(conditionals(drawn.scores, drawn.law, drawn.shown).sum() - logged))
    best = np.argsort(-np.asarray(drawn.scores, np.float64), kind="stable")[: len(drawn.shown)]
    return float(np.array_equal(best, drawn.shown) / np.exp(logged))


def _together(lists: Sequence[LoggedList], rows: Sequence[_Row], subjects: int, undecoded: int) -> TermsOfLists:
    longest = max((len(row.weight) for row in rows), default=1)
    shape = (len(rows), longest)
    valid, weight, reward, predicted = np.zeros(shape, bool), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for place, (one, row) in enumerate(zip(lists, rows, strict=True)):
        n = len(row.weight)
        valid[place, :n], weight[place, :n] = True, row.weight
        reward[place, :n], predicted[place, :n] = one.reward, row.predicted
    whole = [row.list_weight for row in rows]
    outside = [row.outside for row in rows]
    return TermsOfLists(
        Terms(
            subject=_owners(lists),
            subjects=subjects,
            valid=valid,
            weight=weight,
            reward=reward,
            predicted=predicted,
            expected=np.array([row.expected for row in rows]),
            list_weight=np.array(whole, np.float64) if rows and None not in whole else None,
        ),
        undecoded,
        float(np.mean([one or 0.0 for one in outside])) if rows and None not in outside else None,
    )


def _owners(lists: Sequence[LoggedList]) -> IntArray:
    return np.fromiter((one.owner for one in lists), np.int64, len(lists))
