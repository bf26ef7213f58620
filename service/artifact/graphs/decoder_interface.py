"""The interfaces of the graphs that decode: `decoder.onnx` and `sampler.onnx`."""

from __future__ import annotations

import itertools

from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_interface import Dtype, GraphShape, Interface, Tensor, context, hidden, item_table
from service.artifact.graphs.graph_names import level_input
from service.artifact.graphs.level_tables import levels_by_rows, levels_with_row_tokens, token_dtype


def decoder(shape: GraphShape, *, dense: bool, cells: bool = False) -> Interface:
    """Returns the interface of `decoder.onnx`: hidden states → deterministic lists.

    Args:
        shape: The graph's shape.
        dense: Whether the graph scores the whole catalogue; otherwise the items with signals and the beam's alone.
        cells: Without `dense`: whether it scores the items of the best cells as well.
    """
    levels = (level_inputs(shape, level) for level in range(len(shape.code_sizes)))
    kept, candidates = ("batch", 1, "kept"), ("batch", 1, "candidates")
    inputs = (
        hidden(shape),
        context(shape),
        Tensor(names.GAP, "float32", ("batch", 2)),
        Tensor(names.FILTER, "int64", ("batch",)),
        *itertools.chain.from_iterable(levels),
        Tensor(names.LEAF_ITEM, "int64", ("items",)),
        item_table(shape),
        *_fused(shape, dense=dense),
        *(_cells(shape) if cells else ()),
    )
    outputs = (
        Tensor(names.ITEM, "int64", kept),
        Tensor(names.SCORE, "float32", kept),
        Tensor(names.LOG_PROB, "float32", kept),
        Tensor(names.QUERY, "float32", ("batch", shape.d_model)),
        Tensor(names.OFFSET, "float32", ("batch", 1, 1)),
        Tensor(names.CANDIDATE_ITEM, "int64", candidates),
        Tensor(names.CANDIDATE_PATH, "float32", candidates),
        Tensor(names.CANDIDATE_DENSE, "float32", candidates),
    )
    return Interface(inputs, outputs)


# Outputs that a run computes only if it asks for them. A sampled list always comes with what it was drawn from.
ON_REQUEST = frozenset({names.CANDIDATE_ITEM, names.CANDIDATE_PATH, names.CANDIDATE_DENSE})
ON_REQUEST_SAMPLED = ON_REQUEST - {names.CANDIDATE_ITEM}


def sampler(shape: GraphShape, *, dense: bool, cells: bool = False) -> Interface:
    """Returns the interface of `sampler.onnx`: hidden states → sampled lists. `dense` and `cells` as for `decoder`."""
    deterministic = decoder(shape, dense=dense, cells=cells)
    sampling = (
        Tensor(names.ITEM_HASH, "int64", ("rows",)),
        Tensor(names.INVERSE_TEMPERATURE, "float32", ("batch",)),
        Tensor(names.TOP_P, "float32", ("batch",)),
        Tensor(names.SEED, "int64", ("batch",)),
    )
    drawn = (
        Tensor(names.LOG_PROPENSITY, "float32", ("batch", 1, "kept")),
        Tensor(names.CANDIDATE_SCORE, "float32", ("batch", 1, "candidates")),
    )
    return Interface((*deterministic.inputs, *sampling), (*drawn, *deterministic.outputs))


def level_inputs(shape: GraphShape, level: int) -> list[Tensor]:
    """Returns the inputs of the decoder and of the sampler that a level of the trie has."""
    nodes, below, closed = f"nodes_{level}", _nodes_below(shape, level), ("batch", 1, f"closed_{level}")
    found: dict[str, tuple[Dtype, tuple[int | str, ...]]] = {
        names.KEEP: ("int64", (1,)),
        names.TOKEN: ("int64", (below,)),
        names.CLOSED_SLOT: ("int64", closed),
    }
    if level == 0:
        found |= {names.NODE_OK: ("bool", ("filters", below)), names.CLOSED_VALUE: ("float32", closed)}
        return [Tensor(level_input(name, level), dtype, size) for name, (dtype, size) in found.items()]
    found |= {
        names.CLOSED_PARENT: ("int64", closed),
        names.FLAT: ("int64", (3,)),
        names.BEAM: ("int64", (3,)),
        names.ROW_BASE: ("int64", ("batch", 1, 1)),
        names.PLACE: ("float32", (2, f"width_{level}")),
        names.N_SLOTS: ("int64", (1,)),
        names.NODE_BASE: ("int64", (f"beams_{level}",)),
    }
    if level in levels_by_rows(shape.code_sizes):
        size = shape.code_sizes[level]
        found |= {
            names.ROW_OK: ("int8", (f"row_oks_{level}", size)),
            names.ROW_CHILD: ("int64", (f"row_children_{level}",)),
        }
        del found[names.TOKEN]
    else:
        found[names.CHILD_OK] = ("uint8", (f"child_oks_{level}", f"bytes_{level}"))
        if level in levels_with_row_tokens(shape.code_sizes):
            found |= {
                names.FIRST: ("int64", (nodes,)),
                names.ROW_TOKEN: (token_dtype(shape.code_sizes[level]), (nodes, f"slots_{level}")),
            }
        else:
            found |= {
                names.FIRST: ("int64", (nodes, 1)),
                names.SLOTS: ("int64", (f"slots_{level}",)),
                names.LAST_NODE: ("int64", (1,)),
            }
    return [Tensor(level_input(name, level), dtype, size) for name, (dtype, size) in found.items()]


def _fused(shape: GraphShape, *, dense: bool) -> list[Tensor]:
    """What the fused score and the candidates beside the beam's need."""
    found: dict[str, tuple[Dtype, tuple[int | str, ...]]] = {
        names.WEIGHTS: ("float32", ("batch", 2)),
        names.GROUP: ("int64", ("batch",) if dense else ("batch", 1)),
        names.SIGNAL_ITEM: ("int64", ("batch", "signals")),
        names.SIGNAL_VALUE: ("float32", ("batch", "signals")),
        names.ITEM_BIAS: ("float32", ("groups", "rows") if dense else ("group_rows",)),
        names.ITEM_PATH: ("int32", ("rows", len(shape.code_sizes))),
        names.KEEP_JOINED: ("int64", (1,)),
        names.JOINED_SHAPE: ("int64", (3,)),
        names.JOIN: ("float32", (1,)),
    }
    if dense:
        found |= {
            names.ITEM_OK: ("bool", ("filters", "rows")),
            names.EXCLUDED_ITEM: ("int64", ("batch", "excluded")),
            names.EXCLUDED_VALUE: ("float32", ("batch", "excluded")),
        }
    return [Tensor(name, dtype, size) for name, (dtype, size) in found.items()]


def _cells(shape: GraphShape) -> list[Tensor]:
    """What candidates by cell need besides."""
    excluded, signals = ("batch", "excluded"), ("batch", "signals")
    return [
        Tensor(names.QUERY_BASIS, "float32", (shape.d_model, "dimensions")),
        Tensor(names.CELL_VECTOR, "float32", ("cells", "dimensions")),
        Tensor(names.LEAF_VECTOR, "float32", ("items", "dimensions")),
        Tensor(names.LEAF_BIAS, "float32", ("group_leaves",)),
        Tensor(names.CELL_SPREAD, "float32", (1, "cells")),
        Tensor(names.CELL_BIAS, "float32", ("groups", "cells")),
        Tensor(names.CELL_LEAF, "int64", ("cells",)),
        Tensor(names.CELL_STRIDE, "int64", (1,)),
        Tensor(names.LEAF_STRIDE, "int64", (1,)),
        Tensor(names.CELL_OPEN, "bool", ("filters", "cells")),
        Tensor(names.CELL_FIRST, "int32", ("filter_cells",)),
        Tensor(names.CELL_PLACE, "int8", ("filter_leaves",)),
        Tensor(names.CELL_SLOT, "int64", (1, "slots")),
        Tensor(names.CELL_NOTHING, "float32", (1, "slots")),
        Tensor(names.KEEP_CELLS, "int64", (1,)),
        Tensor(names.KEEP_EXACT, "int64", (1,)),
        Tensor(names.CELL_RANK, "int64", (1, "cells_kept")),
        Tensor(names.CELLS_READ, "int64", ("batch", 1)),
        Tensor(names.EXCLUDED_CELL, "int64", excluded),
        Tensor(names.EXCLUDED_PLACE, "int64", excluded),
        Tensor(names.EXCLUDED_VALUE, "float32", excluded),
        Tensor(names.SIGNAL_CELL, "int64", signals),
        Tensor(names.SIGNAL_PLACE, "int64", signals),
        Tensor(names.CELL_GROUP, "int64", ("batch",)),
    ]


def _nodes_below(shape: GraphShape, level: int) -> str:
    return "items" if level == len(shape.code_sizes) - 1 else f"nodes_{level + 1}"
