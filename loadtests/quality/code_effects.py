"""What a control code does to the lists of everybody who asks for it, and whom it serves. Pure.

The same questions are asked twice, without the code and with it. Criteria of the figures are written down here, before
anything is measured; the rows of `results/memory.json` show them, missed ones too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.evaluation import list_qualities, metrics
from model.evaluation.bootstrap import paired_bootstrap
from service.artifact.array_types import Float64Array, IntArray

K = 10
# Of a code: the figure and its limit, as `loadtests.common.results.row` takes it. A figure without one is only shown.
LIMITS: Mapping[str, Mapping[str, float]] = {
    # Asked for a code, more of the list has it: the lower end of the 95 % interval.
    "share of the list that has the code, gained, lower end": {"above": 0.0},
    # Asked for the code of what they take next, users find it more often.
    "recall@10 gained with the target's code, lower end": {"above": 0.0},
    # The groups of short and of long histories are served no less alike than without the code.
    "recall@10, groups of history length further apart": {"at_most": 0.01},
    # A code narrows lists, but it must not leave the tail of the catalogue to those who ask for nothing.
    "share of tail items, lost": {"at_most": 0.05},
}


@dataclass(frozen=True, eq=False)
class Asked:
    """Lists of the same questions, without and with a code.

    Attributes:
        without: [users, depth] lists without it.
        target_code: [users, depth] lists with the code of the target.
        any_code: [users, depth] lists with a code drawn for the user, whatever the target is.
        has: [users, items] bool in rows of codes: whether an item has a code; `drawn` picks the row of a user.
        drawn: [users] row of `has`.
        targets: [users] the items that were taken next.
        coded: [users] bool, whether the target has a code.
        lengths: [users] events of each history.
        groups: [items] groups of `list_qualities.popularity_group`.
    """

    without: IntArray
    target_code: IntArray
    any_code: IntArray
    has: npt.NDArray[np.bool_]
    drawn: IntArray
    targets: IntArray
    coded: npt.NDArray[np.bool_]
    lengths: IntArray
    groups: IntArray


def effects(asked: Asked) -> dict[str, float]:
    """Returns the figures of `LIMITS`, and others beside them, by name."""
    n_items = asked.has.shape[1]
    recall = {
        name: metrics.recall(metrics.target_ranks(lists, asked.targets), K)
        for name, lists in (("without", asked.without), ("with", asked.target_code))
    }
    coded = asked.coded
    gained = paired_bootstrap(recall["with"][coded], recall["without"][coded]) if coded.any() else None
    kept, given = _share_with(asked.without, asked), _share_with(asked.any_code, asked)
    tails = [np.nanmean(list_qualities.tail_share(lists, K, asked.groups)) for lists in (asked.without, asked.any_code)]
    exposed = [list_qualities.exposure(lists, K, n_items) for lists in (asked.without, asked.any_code)]
    group, _ = list_qualities.length_groups(asked.lengths)
    apart = [spread(recall[name], group) for name in ("without", "with")]
    return {
        "share of the list that has the code, gained, lower end": paired_bootstrap(given, kept).low,
        "share of the list that has the code": float(given.mean()),
        "share of the list that has the code, without asking": float(kept.mean()),
        "recall@10 gained with the target's code, lower end": 0.0 if gained is None else gained.low,
        "recall@10 with the target's code": float(recall["with"].mean()),
        "recall@10 without": float(recall["without"].mean()),
        "recall@10, groups of history length further apart": apart[1] - apart[0],
        "recall@10, groups of history length apart": apart[1],
        "share of tail items, lost": float(tails[0] - tails[1]),
        "share of tail items": float(tails[1]),
        "Gini coefficient of exposure": list_qualities.gini(exposed[1]),
        "Gini coefficient of exposure, without": list_qualities.gini(exposed[0]),
        "exposure moved, Jensen-Shannon": list_qualities.jensen_shannon(exposed[0], exposed[1]),
    }


def spread(values: Float64Array, group: IntArray) -> float:
    """Returns how far the means of groups are apart: the largest less the smallest.

    Args:
        values: [users] a figure.
        group: [users] group of each.
    """
    means = [float(values[group == one].mean()) for one in np.unique(group)]
    return max(means) - min(means)


def _share_with(lists: IntArray, asked: Asked) -> Float64Array:
    """The share of the first K items of each list [users] that have the code drawn for its user."""
    shown = lists[:, :K]
    hit = asked.has[asked.drawn[:, None], np.maximum(shown, 0)] & (shown >= 0)
    size = np.maximum((shown >= 0).sum(axis=1), 1)
    share: Float64Array = hit.sum(axis=1) / size
    return share
