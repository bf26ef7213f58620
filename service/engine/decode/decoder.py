"""Lists from hidden states, in decoder runs grouped by width and by whether they are sampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from service.artifact.array_types import Array
from service.artifact.graph_names import NEVER
from service.artifact.noise import seed_hash
from service.common.errors import ModelError
from service.engine.decode.closed_nodes import Closed, closed_nodes
from service.engine.decode.device_tables import Shape, Stack, Tables
from service.engine.decode.filters import Mask
from service.engine.jobs import DecodedList, DecodeJob, ListRequest
from service.engine.onnx_session import Placement, Values
from service.engine.run_groups import run_groups

# (sampled, feeds, values that stay, shape, rows) → outputs by name
Run = Callable[[bool, Mapping[str, Any], Sequence[Values], Hashable, int], dict[str, Array]]

# Where shapes are padded, exclusions are as well, at all levels alike.
CLOSED_BUCKETS = (16, 256, 1024)


class Decoder:
    """`run` makes one run of the decoder or the sampler graph. `tables` may be replaced between runs.

    Safe to call from several threads.
    """

    def __init__(self, tables: Tables, at: Placement, run: Run) -> None:
        self.tables = tables
        self._at, self._run = at, run

    def decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList | Exception]:
        """A list for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_groups(jobs, lambda job: job.run_key, self._decode)

    def _decode(self, jobs: Sequence[DecodeJob]) -> list[DecodedList]:
        """One run for jobs of one width and one graph."""
        width, sampled, dense = jobs[0].run_key
        requests = [job.request for job in jobs]
        longest = max(request.k for request in requests)
        if longest > width:
            raise ModelError(f"a beam of {width} cannot hold the {longest} items asked for")
        tables, rows = self.tables, self._at.rows(len(jobs))
        shape = tables.shape(width, rows, sampled, dense)
        masks = [tables.filters.mask(request.filter_id) for request in requests]
        stack = tables.stack(masks)
        closed = self._closed(tables, requests, masks, shape, rows)
        feeds = {
            **_request_feeds(jobs, rows),
            **_filter_feeds(tables, stack, masks, shape, rows),
            **closed,
        }
        if sampled:
            feeds |= _sampling_feeds(requests, rows)
        # Where shapes are padded, they are also all that a captured graph depends on.
        sizes = tuple(values.shape for values in closed.values()) if self._at.pad else ()
        key = (shape.kept, dense, rows, sizes)
        fixed = (tables.values, stack.values, shape.values)
        out = self._run(sampled, feeds, fixed, key, len(jobs))
        # A node whose score is not a number is never listed: the list would only look too short.
        if not all(np.isfinite(out[name]).all() for name in ("score", "log_prob", "query")):
            raise ModelError("the decoder's scores are not finite")
        lists = _lists(requests, out)
        if tables.delta is None:
            return lists
        offset = out["offset"].ravel().tolist()
        noise_level = tables.trie.levels if tables.drawn else None
        return [
            tables.delta.merge(listed, query, offset[row], request, mask.waiting, noise_level)
            for row, (listed, query, request, mask) in enumerate(
                zip(lists, out["query"], requests, masks, strict=False)
            )
        ]

    def _closed(
        self, tables: Tables, requests: Sequence[ListRequest], masks: Sequence[Mask], shape: Shape, rows: int
    ) -> Mapping[str, Array]:
        """Who asks again without an event in between excludes the same items: single lists remember theirs."""
        request = requests[0]

        def work_out() -> Mapping[str, Array]:
            nodes = closed_nodes(tables.trie, masks, [request.excluded for request in requests])
            placed = [_by_token(tables, n, level, shape) for level, n in enumerate(nodes)]
            joins = tables.joins(request.decoding.sampled)
            return self._closed_feeds(placed, _excluded(requests, tables.dense_rows) if joins else None, rows)

        if len(requests) > 1:
            return work_out()
        key = (request.filter_id, request.decoding.sampled, request.excluded.tobytes())
        return tables.remembered(key, work_out)

    def _closed_feeds(self, closed: Sequence[Closed], excluded: Sequence[Array] | None, rows: int) -> dict[str, Array]:
        """`excluded` items by row, where the graph scores the whole catalogue; None where it does not."""
        feeds: dict[str, Array] = {}
        sizes = [max(1, nodes.most(rows)) for nodes in closed]
        items = max(1, *map(len, excluded)) if excluded else 1
        if self._at.pad:
            most = max(*sizes, items)
            items = next((bucket for bucket in CLOSED_BUCKETS if bucket >= most), most)
            sizes = [items] * len(sizes)
        for level, (nodes, size) in enumerate(zip(closed, sizes, strict=True)):
            parent, feeds[f"closed_slot_{level}"] = nodes.padded(rows, size)
            if level == 0:
                feeds["closed_value_0"] = (parent == 0) * np.float32(NEVER)
            else:
                feeds[f"closed_parent_{level}"] = parent
        return feeds if excluded is None else feeds | _excluded_feeds(excluded, rows, items)


def _excluded(requests: Sequence[ListRequest], rows: int) -> list[Array]:
    """Each request's excluded items among the first `rows`; unknown ones count for nothing."""
    # As unsigned numbers, indices below 0 are beyond the last.
    return [request.excluded[request.excluded.astype(np.uint64) < rows] for request in requests]


def _excluded_feeds(excluded: Sequence[Array], rows: int, size: int) -> dict[str, Array]:
    item, value = np.zeros((rows, size), np.int64), np.zeros((rows, size), np.float32)
    for row, items in enumerate(excluded):
        item[row, : len(items)] = items
        value[row, : len(items)] = NEVER
    return {"excluded_item": item, "excluded_value": value}


def _request_feeds(jobs: Sequence[DecodeJob], rows: int) -> dict[str, Array]:
    return {
        "h": _padded(np.array([job.h for job in jobs], np.float32), rows),
        "context": _padded(np.array([job.request.context for job in jobs], np.int64), rows),
        "gap": _padded(np.array([gap_input(job.request.gap_ms) for job in jobs], np.float32), rows),
    }


def _sampling_feeds(requests: Sequence[ListRequest], rows: int) -> dict[str, Array]:
    return {
        "inverse_temperature": _padded(np.array([r.decoding.inverse_temperature for r in requests], np.float32), rows),
        "top_p": _padded(np.array([request.decoding.nucleus for request in requests], np.float32), rows),
        "seed": _padded(np.array([seed_hash(request.seed) for request in requests], np.int64), rows),
    }


def _filter_feeds(tables: Tables, stack: Stack, masks: Sequence[Mask], shape: Shape, rows: int) -> dict[str, Any]:
    """Every row's place in the stack, and at deeper levels what that adds to a node's place."""
    row = _padded(np.array([stack.row[mask] for mask in masks], np.int64), rows)
    if not row.any():
        return {"filter": row, **shape.node_base}
    feeds = {"filter": row}
    for level in range(1, tables.trie.levels):
        by_rows = level in shape.by_rows
        base = np.repeat(row * tables.trie.n_nodes[level - by_rows], shape.kept[level - 1])
        feeds[f"node_base_{level}"] = base if by_rows else base[:, None]
    return feeds


def _by_token(tables: Tables, closed: Closed, level: int, shape: Shape) -> Closed:
    """Closed nodes with the place that they have in the graph: their token where the level is looked up by rows."""
    if level not in shape.by_rows or not len(closed.row):
        return closed
    trie = tables.trie
    return replace(closed, slot=trie.token[level][trie.first_child[level][closed.parent] + closed.slot])


def _padded(array: Array, rows: int) -> Array:
    """Zeros behind the rows of a batch."""
    if len(array) == rows:
        return array
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])


def gap_input(gap_ms: int) -> tuple[float, float]:
    """What the graph reads of the gap to now: log(1 + seconds) / 10, and 1 where it is known."""
    return (0.1 * math.log1p(gap_ms / 1000.0), 1.0) if gap_ms >= 0 else (0.0, 0.0)


def _lists(requests: Sequence[ListRequest], out: Mapping[str, Array]) -> list[DecodedList]:
    item, score, log_prob = out["item"], out["score"], out["log_prob"]
    found = np.count_nonzero(item >= 0, axis=2).ravel().tolist()
    lists = []
    for row, request in enumerate(requests):  # padding has no request
        n = min(request.k, found[row])
        lists.append(DecodedList(item[row, 0, :n], score[row, 0, :n], log_prob[row, 0, :n]))
    return lists
