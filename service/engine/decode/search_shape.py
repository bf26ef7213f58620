"""The inputs of a decoder run that follow from the width of the beam and the size of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_names import NEVER, level_input
from service.engine.decoding import SearchSizes
from service.engine.onnx_session import Values
from service.engine.placement import Placement


@dataclass(frozen=True, slots=True)
class SearchShape:
    """The shape of one beam search.

    Attributes:
        values: Inputs on the device.
        first_mask: The inputs `FILTER` and `NODE_BASE` of a batch whose rows all have the first mask of the stack:
            zeros.
        kept: [K] number of nodes kept after each level.
        by_rows: The levels at which a child's place is its token.
        by_parent: The levels at which the graphs look up the masks of a node's children by the node.
    """

    values: Values
    first_mask: Values
    kept: tuple[int, ...]
    by_rows: frozenset[int]
    by_parent: frozenset[int]


def search_shape(
    placement: Placement,
    places: Sequence[int],
    *,
    sizes: SearchSizes,
    rows: int,
    by_rows: frozenset[int],
    packed: bool,
) -> SearchShape:
    """Returns the shape of a search.

    Args:
        placement: Where the inputs go.
        places: [K] places that a node's children have at each level.
        sizes: What the run keeps.
        rows: Rows of the batch, padding included.
        by_rows: The levels that the graph looks up by rows.
        packed: Whether the graph looks up all masks by the parents.
    """
    values: dict[str, ort.OrtValue] = {}
    host, put = placement.host, placement.put
    first_mask: dict[str, ort.OrtValue] = {names.FILTER: put(np.zeros(rows, np.int64))}
    kept = 1
    counts = []
    by_parent = frozenset(range(1, len(places))) if packed else by_rows
    for level, n_places in enumerate(places):
        if level > 0:
            row_base = np.arange(rows, dtype=np.int64).reshape(-1, 1, 1) * (kept * n_places)
            first = np.arange(kept) * (n_places if packed else 1)
            place = np.stack([first, np.full(kept, NEVER)]).astype(np.float32)
            inputs = {
                names.FLAT: host(np.array([-1, 1, kept * n_places], np.int64)),
                names.BEAM: host(np.array([-1, kept, 1], np.int64)),
                names.ROW_BASE: put(row_base),
                names.PLACE: put(place),
                names.N_SLOTS: put(np.array([n_places], np.int64)),
            }
            values |= {level_input(name, level): value for name, value in inputs.items()}
            base = np.zeros(rows * kept, np.int64)
            first_mask[level_input(names.NODE_BASE, level)] = put(base if level in by_parent else base[:, None])
        kept = min(sizes.width if level < len(places) - 1 else sizes.listed, kept * n_places)
        counts.append(kept)
        values[level_input(names.KEEP, level)] = host(np.array([kept], np.int64))
    values[names.KEEP_JOINED] = host(np.array([sizes.joined], np.int64))
    values[names.JOINED_SHAPE] = host(np.array([-1, 1, sizes.joined], np.int64))
    return SearchShape(values, first_mask, tuple(counts), by_rows, by_parent)
