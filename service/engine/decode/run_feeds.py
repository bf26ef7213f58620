"""The inputs of a decoder run, row by row: what requests ask for, what filters leave, and what is closed. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from service.artifact.array_types import Array
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_names import NEVER, level_input
from service.artifact.graphs.noise import seed_hash
from service.engine.decode.closed_nodes import ClosedNodes
from service.engine.decode.device_tables import Tables
from service.engine.decode.filters import Mask
from service.engine.decode.search_shape import SearchShape
from service.engine.jobs import DecodeJob, ListRequest

# Numbers of exclusions that runs are padded to where shapes are padded: one number for all levels. More exclusions than
# the last are padded to a multiple of it, so that the shapes stay few.
CLOSED_BUCKETS = (16, 256, 1024)


def exclusion_bucket(exclusions: int) -> int:
    """Returns the number of exclusions that a run with this many is padded to."""
    last = CLOSED_BUCKETS[-1]
    return next((bucket for bucket in CLOSED_BUCKETS if bucket >= exclusions), math.ceil(exclusions / last) * last)


def excluded_items(requests: Sequence[ListRequest], rows: int) -> list[Array]:
    """Returns each request's excluded items among the first `rows`; unknown indices are dropped."""
    # As unsigned numbers, indices below 0 lie beyond the last.
    return [request.excluded[request.excluded.astype(np.uint64) < rows] for request in requests]


def of_excluded(excluded: Sequence[Array], rows: int, size: int) -> dict[str, Array]:
    """Returns the inputs that close excluded items of a graph that scores the whole catalogue, padded to `size`."""
    item, value = np.zeros((rows, size), np.int64), np.zeros((rows, size), np.float32)
    for row, items in enumerate(excluded):
        item[row, : len(items)] = items
        value[row, : len(items)] = NEVER
    return {names.EXCLUDED_ITEM: item, names.EXCLUDED_VALUE: value}


def of_requests(jobs: Sequence[DecodeJob], rows: int) -> dict[str, Array]:
    """Returns the inputs that say what users did and when they ask: states, context and gaps."""
    return {
        names.HIDDEN: _padded(np.array([job.h for job in jobs], np.float32), rows),
        names.CONTEXT: _padded(np.array([job.request.context for job in jobs], np.int64), rows),
        names.GAP: _padded(np.array([gap_input(job.request.gap_ms) for job in jobs], np.float32), rows),
    }


def of_weights(tables: Tables, requests: Sequence[ListRequest], rows: int) -> dict[str, Array]:
    """Returns the weights of every row's network, and the place of its group's bias."""
    of_group = tables.ranking.weights
    group = np.array([request.group for request in requests], np.int64)
    weights = of_group.take(group, axis=0)
    for row, request in enumerate(requests):
        if request.weights is not None:
            weights[row] = request.weights
    of_cells = {} if tables.cells is None else {names.CELL_GROUP: _padded(group, rows)}
    if not tables.traits.dense:
        group = group[:, None] * tables.item_rows
    return {names.WEIGHTS: _padded(weights, rows), names.GROUP: _padded(group, rows), **of_cells}


def of_sampling(requests: Sequence[ListRequest], rows: int) -> dict[str, Array]:
    """Returns the inputs that only the sampler has."""
    inverse_temperature = [request.decoding.inverse_temperature for request in requests]
    return {
        names.INVERSE_TEMPERATURE: _padded(np.array(inverse_temperature, np.float32), rows),
        names.TOP_P: _padded(np.array([request.decoding.nucleus for request in requests], np.float32), rows),
        names.SEED: _padded(np.array([seed_hash(request.seed) for request in requests], np.int64), rows),
    }


def of_filters(tables: Tables, masks: Sequence[Mask], shape: SearchShape, rows: int) -> Mapping[str, Any]:
    """Returns the place of every row's mask in the arena, and what it adds to the place of a node at deeper levels."""
    places = [mask.place for mask in masks]
    if not any(places):
        return shape.first_mask
    row = _padded(np.array(places, np.int64), rows)
    feeds = {names.FILTER: row}
    for level in range(1, tables.trie.levels):
        by_parent = level in shape.by_parent
        base = np.repeat(row * tables.trie.n_nodes[level - by_parent], shape.kept[level - 1])
        feeds[level_input(names.NODE_BASE, level)] = base if by_parent else base[:, None]
    return feeds


def by_token(tables: Tables, closed: ClosedNodes, level: int, shape: SearchShape) -> ClosedNodes:
    """Returns closed nodes with their place in the graph: their token, at levels that are looked up by rows."""
    if level not in shape.by_rows or not len(closed.row):
        return closed
    trie = tables.trie
    return replace(closed, slot=trie.token[level][trie.first_child[level][closed.parent] + closed.slot])


def _padded(array: Array, rows: int) -> Array:
    """Adds zeros behind the rows of a batch."""
    if len(array) == rows:
        return array
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])


def gap_input(gap_ms: int) -> tuple[float, float]:
    """Returns what the graph reads of the gap: log(1 + seconds) / 10, and 1 if it is known; else 0 and 0."""
    return (0.1 * math.log1p(gap_ms / 1000.0), 1.0) if gap_ms >= 0 else (0.0, 0.0)
