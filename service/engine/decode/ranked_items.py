"""Ranks given items by the fused score, with the graph of deterministic lists.

The candidates that join a beam are the best by what is known of their score without the path. A large signal makes the
given items the best of all, so all of them join, and the graph says of each what its path and its vector are worth. The
host adds what signals add, which that large number has rounded away. So nothing is added to the artefact: graphs of
earlier exports rank items too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from service.artifact.array_types import Array, Float64Array, IntArray
from service.artifact.graphs import graph_names as names
from service.artifact.trie import Trie
from service.engine.candidates import Candidates
from service.engine.decode.delta_table import DeltaTable, WaitingScores
from service.engine.decode.filters import Mask
from service.engine.decode.ranking import Ranking
from service.engine.decode.signal_inputs import listable
from service.engine.decoding import RANKED_MAX
from service.engine.jobs import DecodedList, ListRequest
from service.signals.item_values import ItemValues

# Far above every score, far below what closes an item.
_JOINS = np.float32(1e6)
_NONE = np.zeros(0, np.int64)


def joining(request: ListRequest, trie: Trie, mask: Mask) -> ItemValues:
    """Returns signals that make the items of a request join the beam: of those that it may list."""
    items = _NONE if request.ranked is None else np.unique(request.ranked)
    return listable(ItemValues(items, np.full(len(items), _JOINS)), trie, mask, request.excluded, RANKED_MAX)


def ranked_list(
    request: ListRequest, out: Mapping[str, Array], row: int, weights: Array, ranking: Ranking, chosen: IntArray
) -> tuple[DecodedList, float]:
    """Ranks the items of one row.

    Args:
        request: What was asked for.
        out: Outputs of the run, with all candidates.
        row: The row of the batch.
        weights: [2] of the path's log-probability and of the dense score.
        ranking: Signals of items.
        chosen: The items that joined, ascending.

    Returns:
        The list, and the offset of its dense scores (`export.graphs.decoder`).
    """
    item = out[names.CANDIDATE_ITEM][row, 0]
    kept = np.isin(item, chosen)
    items = item[kept]
    path, dense = (out[name][row, 0, kept] for name in (names.CANDIDATE_PATH, names.CANDIDATE_DENSE))
    offset = _log_sum_exp(path) - _log_sum_exp(dense)
    added = request.signals.unpacked().of(items) + ranking.bias_of_any(items, request.group)
    score = weights[0] * path + weights[1] * (dense + np.float32(offset)) + added
    order = np.lexsort((items, -score))
    candidates = Candidates(items, path, dense, np.ones(len(items), np.bool_)) if request.candidates else None
    first = order[: request.length]
    listed = DecodedList(items[first], score[first].astype(np.float32), path[first], candidates=candidates)
    return listed, offset


def with_waiting(
    listed: DecodedList, offset: float, delta: DeltaTable, scores: WaitingScores, request: ListRequest, mask: Mask
) -> DecodedList:
    """Ranks those waiting items among the others that the request names."""
    named = _NONE if request.ranked is None else request.ranked
    return delta.merge(listed, replace(scores, offset=offset), request, mask.waiting & np.isin(delta.items, named))


def _log_sum_exp(values: Array) -> float:
    if not len(values):
        return 0.0
    exact: Float64Array = values.astype(np.float64)
    largest = float(exact.max())
    return largest + float(np.log(np.exp(exact - largest).sum()))
