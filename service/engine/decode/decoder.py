"""Lists from hidden states, in decoder runs grouped by width and by whether they are sampled."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from service.artifact.array_types import Array
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_names import NEVER, level_input
from service.artifact.graphs.run_sizes import RunSizes
from service.common.errors import ModelError
from service.engine.candidates import Candidates
from service.engine.decode import run_feeds
from service.engine.decode.cell_tables import CellArena, CellTables
from service.engine.decode.closed_nodes import ClosedNodes, closed_nodes
from service.engine.decode.delta_table import DeltaTable, WaitingScores
from service.engine.decode.device_tables import Tables
from service.engine.decode.filters import Mask
from service.engine.decode.ranked_items import joining, ranked_list, with_waiting
from service.engine.decode.search_shape import SearchShape
from service.engine.decode.signal_inputs import signal_feeds
from service.engine.decoding import RANKED_MAX, SearchSizes, search_sizes, signal_buckets
from service.engine.draw import Draw
from service.engine.jobs import RANKED_KEY, DecodedList, DecodeJob, DecodeKey, ListRequest
from service.engine.onnx_session import Values
from service.engine.placement import Placement
from service.engine.run_groups import run_groups
from service.signals.item_values import ItemValues

# (sampled, feeds, values that stay, shape, rows, whether all candidates are wanted) → outputs by name
RunDecoder = Callable[[bool, Mapping[str, Any], Sequence[Values], Hashable, int, bool], dict[str, Array]]

# What a run without cells reads of them. Always the same object: bindings are told apart by it.
_NO_CELLS: Values = {}

# Outputs that must be numbers; the sampler alone has the last.
_FINITE = (names.SCORE, names.LOG_PROB, names.QUERY, names.LOG_PROPENSITY)


class Decoder:
    """Decodes lists with the decoder and the sampler graph. Safe to call from several threads.

    Attributes:
        tables: The catalogue on the device; may be replaced between runs.
        measured: Which runs are narrower than planned; may be replaced between runs.
    """

    def __init__(self, tables: Tables, placement: Placement, run: RunDecoder, measured: RunSizes) -> None:
        """`run` makes one run of the decoder, or of the sampler; `measured` is what the export found of its width."""
        self.tables, self.measured = tables, measured
        self._placement, self._run = placement, run

    def decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList | Exception]:
        """Decodes a list for every job, in order. A job that cannot be run gets its own error and harms no other."""
        held = self.tables.filters
        # A job whose filter was dropped meanwhile fails, and must not take the others of its group along.
        return run_groups(jobs, lambda job: (job.run_key, job.request.filter_id in held), self._decode)

    def sizes(self, key: DecodeKey) -> SearchSizes:
        """Returns what the run with this key keeps."""
        width, sampled, joined, least = key
        if key == RANKED_KEY:
            return SearchSizes(width, width, joined)  # all items that are named join, in every catalogue
        tables = self.tables
        return search_sizes(
            width, joined, sampled=sampled, dense=tables.traits.proposes, least=least,
            children=max(1, tables.trie.branching[-1]), measured=self.measured,
        )  # fmt: skip

    def _decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList]:
        tables = self.tables
        with tables.filters.pinned([job.request.filter_id for job in jobs]) as masks:
            return self._run_of(jobs, tables, masks)

    def _run_of(self, jobs: Sequence[DecodeJob], tables: Tables, masks: Sequence[Mask]) -> list[DecodedList]:
        """One run, for jobs of one width and one graph."""
        width, sampled, *_ = jobs[0].run_key
        requests = [job.request for job in jobs]
        ranked = requests[0].ranked is not None  # they have a key of their own
        longest = max(request.k for request in requests)
        if longest > width and not ranked:
            raise ModelError(f"a beam of width {width} cannot hold the {longest} items requested")
        rows = self._placement.rows(len(jobs))
        signals = [
            joining(request, tables.trie, mask) if ranked else tables.signals.of(request, mask)
            for request, mask in zip(requests, masks, strict=True)
        ]
        shown = signal_feeds(signals, rows, self._signals_size(tables, signals, ranked=ranked))
        if tables.cells is not None:
            shown |= tables.cells.signal_feeds(signals, masks, rows, shown[names.SIGNAL_ITEM].shape[1])
        planned = self.sizes(jobs[0].run_key)
        joined = min(planned.joined, tables.most_joined(shown[names.SIGNAL_ITEM].shape[1]))
        kept = planned if joined == planned.joined else replace(planned, joined=joined)
        shape = tables.shape(kept, rows)
        padded = {**self._exclusions(tables, requests, masks, shape, rows), **shown}
        feeds = {
            **run_feeds.of_requests(jobs, rows),
            **run_feeds.of_weights(tables, requests, rows),
            **run_feeds.of_filters(tables, masks, shape, rows),
            **padded,
        }
        if sampled:
            feeds |= run_feeds.of_sampling(requests, rows)
        # Waiting items are drawn with all candidates, and those that come up must say what their path is worth.
        wanted = ranked or any(request.candidates for request in requests) or (sampled and tables.delta is not None)
        # Where shapes are padded, these sizes are all else that a captured graph depends on.
        sizes = tuple(values.shape for values in padded.values()) if self._placement.pad else ()
        fixed: tuple[Values, ...] = (tables.values, tables.arena.values, shape.values)
        read = _NO_CELLS
        if tables.cells is not None and isinstance(tables.arena, CellArena):
            feeds[names.CELLS_READ] = cells = tables.arena.read(masks, rows)
            read = tables.cells.keep(int(cells.max()), joined)
            fixed = (*fixed, read)
        key = (shape.kept, joined, rows, sizes, wanted, id(read))
        out = self._run(sampled, feeds, fixed, key, len(jobs), wanted)
        # A node whose score is not a number is never listed: the list would only look too short.
        if not all(_finite(out[name]) for name in _FINITE if name in out):
            raise ModelError("the decoder's scores are not finite")
        if ranked:
            return _ranked(tables, requests, masks, signals, feeds[names.WEIGHTS], out)
        lists = _lists(requests, signals, out)
        if tables.delta is None:
            return lists
        waiting = _waiting_scores(tables, tables.delta, requests, feeds[names.WEIGHTS], out)
        return [
            tables.delta.merge(decoded, scores, request, mask.waiting, tables.noise.hashes)
            for decoded, scores, request, mask in zip(lists, waiting, requests, masks, strict=True)
        ]

    def _signals_size(self, tables: Tables, signals: Sequence[ItemValues], *, ranked: bool) -> int:
        """The number of signals that the run takes in: one of few where shapes are padded, or depend on it."""
        dense, size = tables.traits.dense, max(1, *map(len, signals))
        if ranked:
            return RANKED_MAX if self._placement.pad else size
        if dense and not self._placement.pad:
            return size
        return next(bucket for bucket in signal_buckets(dense=dense) if bucket >= size)

    def _exclusions(
        self,
        tables: Tables,
        requests: Sequence[ListRequest],
        masks: Sequence[Mask],
        shape: SearchShape,
        rows: int,
    ) -> Mapping[str, Array]:
        """The inputs that keep excluded items out.

        Those of single lists are cached: a user who asks again without a new event excludes the same items.
        """
        request = requests[0]

        def compute() -> Mapping[str, Array]:
            levels = closed_nodes(tables.trie, masks, [request.excluded for request in requests])
            placed = [run_feeds.by_token(tables, closed, level, shape) for level, closed in enumerate(levels)]
            excluded = run_feeds.excluded_items(requests, tables.dense_rows) if tables.traits.dense else None
            feeds = self._exclusion_feeds(placed, excluded, rows)
            return feeds if tables.cells is None else feeds | self._cell_exclusions(tables.cells, requests, masks, rows)

        if len(requests) > 1:
            return compute()
        key = (request.filter_id, request.excluded.tobytes())
        return tables.exclusions(key, compute)

    def _cell_exclusions(
        self, cells: CellTables, requests: Sequence[ListRequest], masks: Sequence[Mask], rows: int
    ) -> dict[str, Array]:
        """The inputs that keep excluded items out of what cells propose."""
        found = [cells.excluded(mask, request.excluded) for request, mask in zip(requests, masks, strict=True)]
        size = max(1, *(len(cell) for cell, _ in found))
        size = run_feeds.exclusion_bucket(size) if self._placement.pad else size
        cell, place = np.zeros((2, rows, size), np.int64)
        value = np.zeros((rows, size), np.float32)
        for row, one in enumerate(found):
            n = len(one[0])
            cell[row, :n], place[row, :n] = one
            value[row, :n] = NEVER
        return {names.EXCLUDED_CELL: cell, names.EXCLUDED_PLACE: place, names.EXCLUDED_VALUE: value}

    def _exclusion_feeds(
        self, levels: Sequence[ClosedNodes], excluded: Sequence[Array] | None, rows: int
    ) -> dict[str, Array]:
        """`excluded` items by row if the graph scores the whole catalogue, else None."""
        feeds: dict[str, Array] = {}
        sizes = [max(1, closed.most(rows)) for closed in levels]
        items = max(1, *map(len, excluded)) if excluded else 1
        if self._placement.pad:
            most = max(*sizes, items)
            items = run_feeds.exclusion_bucket(most)
            sizes = [items] * len(sizes)
        for level, (closed, size) in enumerate(zip(levels, sizes, strict=True)):
            parent, slot = closed.padded(rows, size)
            feeds[level_input(names.CLOSED_SLOT, level)] = slot
            if level == 0:
                feeds[level_input(names.CLOSED_VALUE, 0)] = (parent == 0) * np.float32(NEVER)
            else:
                feeds[level_input(names.CLOSED_PARENT, level)] = parent
        return feeds if excluded is None else feeds | run_feeds.of_excluded(excluded, rows, items)


def _waiting_scores(
    tables: Tables,
    delta: DeltaTable,
    requests: Sequence[ListRequest],
    weights: Array,
    out: Mapping[str, Array],
) -> list[WaitingScores]:
    """What the waiting items are worth to each row."""
    query, offset = out[names.QUERY], out[names.OFFSET].ravel().tolist()
    return [
        WaitingScores(
            query=query[row],
            offset=offset[row],
            weight=float(weights[row].sum()),
            added=request.signals.unpacked().of(delta.items) + tables.ranking.bias_of(delta.items, request.group),
        )
        for row, request in enumerate(requests)
    ]


def _ranked(
    tables: Tables,
    requests: Sequence[ListRequest],
    masks: Sequence[Mask],
    joined: Sequence[ItemValues],
    weights: Array,
    out: Mapping[str, Array],
) -> list[DecodedList]:
    """The lists of requests that name the items to rank."""
    found = [
        ranked_list(request, out, row, weights[row], tables.ranking, joined[row].items)
        for row, request in enumerate(requests)
    ]
    if tables.delta is None:
        return [listed for listed, _ in found]
    waiting = _waiting_scores(tables, tables.delta, requests, weights, out)
    return [
        with_waiting(listed, offset, tables.delta, scores, request, mask)
        for (listed, offset), scores, request, mask in zip(found, waiting, requests, masks, strict=True)
    ]


def _finite(values: Array) -> bool:
    # Quicker than `all` of so few.
    return bool(np.count_nonzero(np.isfinite(values)) == values.size)


def _lists(
    requests: Sequence[ListRequest], signals: Sequence[ItemValues], out: Mapping[str, Array]
) -> list[DecodedList]:
    item, score, log_prob = out[names.ITEM], out[names.SCORE], out[names.LOG_PROB]
    lengths = (item >= 0).sum(axis=2).ravel().tolist()
    lists = []
    for row, request in enumerate(requests):  # padding has no request
        n = min(request.length, lengths[row])
        candidates = _candidates(out, row, request.signals.unpacked(), signals[row]) if request.candidates else None
        draw = _draw(out, row, n) if names.LOG_PROPENSITY in out else None
        listed = item[row, 0, :n], score[row, 0, :n], log_prob[row, 0, :n]
        lists.append(DecodedList(*listed, candidates=candidates, draw=draw))
    return lists


def _draw(out: Mapping[str, Array], row: int, n: int) -> Draw:
    """What a sampled list of n items was drawn from."""
    item = out[names.CANDIDATE_ITEM][row, 0]
    alive = item >= 0
    path = out.get(names.CANDIDATE_PATH)
    return Draw(
        out[names.LOG_PROPENSITY][row, 0, :n],
        item[alive],
        out[names.CANDIDATE_SCORE][row, 0, alive],
        None if path is None else path[row, 0, alive],
    )


def _candidates(out: Mapping[str, Array], row: int, signals: ItemValues, counted: ItemValues) -> Candidates:
    item = out[names.CANDIDATE_ITEM][row, 0]
    alive = item >= 0
    path, dense = (out[name][row, 0, alive] for name in (names.CANDIDATE_PATH, names.CANDIDATE_DENSE))
    items = item[alive]
    return Candidates(items, path, dense, signals.of(items) == counted.of(items))
