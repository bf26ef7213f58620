"""The interface of each of the artefact's ONNX graphs: its inputs and outputs with types and symbolic shapes.

This is the one description that the writers (`export.graphs`) declare from and that the reader (`service.engine`)
relies on. `service.artifact.graph_names` says what each tensor holds. The order of the tensors is the order in the
graph files, and so part of the model version.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from service.artifact import graph_names as names
from service.artifact.graph_names import level_input
from service.artifact.query_text import QUERY_GRAMS
from service.artifact.state_layout import StateArray, StateLayout

Dtype = Literal["bool", "int8", "uint8", "int32", "int64", "float16", "float32"]
Compute = Literal["float16", "float32"]  # type of a graph's activations, and of its item vectors


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output of a graph.

    Attributes:
        name: Its name in the graph.
        dtype: Its element type, by numpy's name.
        shape: A number for each fixed dimension, a name for each one that may change from run to run.
    """

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """All inputs and outputs of a graph, in the order of the file."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class GraphShape:
    """What the interfaces depend on.

    Attributes:
        compute: Type of the graph's activations and of its item vectors.
        encoder: Name of the encoder's architecture.
        code_sizes: V_l, the number of different tokens at each level.
    """

    compute: Compute
    encoder: str
    code_sizes: tuple[int, ...]
    d_model: int
    d_head: int
    layers: int
    window: int
    n_slots: int
    has_time: bool
    state_dtype: Literal["float32", "float16", "int8"]
    query_buckets: int = 0
    attribute_slots: int = 0
    session_ids: bool = False

    @classmethod
    def of(cls, network: Mapping[str, Any], compute: Compute) -> GraphShape:
        """From the section "network" of a manifest."""
        later = ("query_buckets", "attribute_slots", "session_ids")  # absent from older manifests
        others = [field.name for field in fields(cls) if field.name not in ("compute", "code_sizes", *later)]
        others += [name for name in later if name in network]
        sizes = tuple(int(size) for size in network["code_sizes"])
        return cls(compute=compute, code_sizes=sizes, **{name: network[name] for name in others})


# Entries of a table by node and token up to which a level is looked up by rows.
_ROWS_MAX = 2**18
# Nodes of a level up to which the tokens of their children are kept in rows, as long as the most that one node has.
_NODES_MAX = 2**17
# Tokens of a level up to which they are, whatever the number of nodes.
_TOKENS_MAX = 64


def levels_by_rows(code_sizes: Sequence[int]) -> frozenset[int]:
    """Returns the levels ≥ 1 whose children the decoder finds by token, in a table of all nodes and tokens.

    These are the first levels, as many as fit. At such a level C_l = V_l and a child's place is its token. Looking up
    a row is one copy, where children in CSR form are gathered one by one. The choice depends on the sizes of the codes
    alone, so that a graph fits whatever items come and go.
    """
    return frozenset(
        level
        for level in range(1, len(code_sizes))
        if math.prod(int(size) for size in code_sizes[: level + 1]) <= _ROWS_MAX
    )


def levels_with_row_tokens(code_sizes: Sequence[int]) -> frozenset[int]:
    """Returns the levels ≥ 1 whose children's tokens fit in one table, a row for each node.

    They have few nodes, or few tokens.
    """
    return levels_of_few_nodes(code_sizes) | frozenset(
        level for level in range(1, len(code_sizes)) if int(code_sizes[level]) <= _TOKENS_MAX
    )


def levels_of_few_nodes(code_sizes: Sequence[int]) -> frozenset[int]:
    """Returns the levels ≥ 1 that have rows of tokens, of int32, in graphs that read a byte of mask for each node."""
    return frozenset(
        level
        for level in range(1, len(code_sizes))
        if math.prod(int(size) for size in code_sizes[:level]) <= _NODES_MAX
    )


def token_dtype(code_size: int) -> Literal["uint8", "int32"]:
    """Returns the type of the tokens of a level in rows of tokens."""
    return "uint8" if code_size <= 256 else "int32"


def encoder(shape: GraphShape) -> Interface:
    """Returns the interface of `encoder.onnx` with a state: state and new events → next state and hidden state."""
    keys_values = ("batch", shape.layers, 2, shape.window, shape.d_head)
    rows, window = keys_values[:-1], ("batch", shape.window)
    quantised = shape.state_dtype == "int8"
    inputs = (
        Tensor(names.KV, shape.state_dtype, keys_values),
        *([Tensor(names.SCALE, "float32", rows)] if quantised else []),
        Tensor(names.PAST_TIME_MS, "int64", window),
        Tensor(names.FIRST_SLOT, "int64", ("batch", 1, 1)),
        *_events(names.ITEM, names.TYPE, names.TIME_MS, names.PREVIOUS_MS),
        Tensor(names.KEPT_SLOT, "int64", window),
        Tensor(names.KEPT_ROW, "int64", rows),
        Tensor(names.LAST_ROW, "int64", ("batch",)),
        *_attention("all_slots"),
        _item_table(shape),
    )
    outputs = (
        Tensor(names.NEXT_KV, shape.state_dtype, keys_values),
        *([Tensor(names.NEXT_SCALE, "float32", rows)] if quantised else []),
        Tensor(names.NEXT_TIME_MS, "int64", window),
        _hidden(shape),
    )
    return Interface(inputs, outputs)


def step_encoder(shape: GraphShape, layout: StateLayout) -> Interface:
    """Returns the interface of `encoder.onnx` that was exported from the `step` of an encoder, with a state."""
    inputs = (
        *(_array(names.past_input(array.name), array) for array in layout.arrays),
        Tensor(names.N_VALID, "int64", ("batch",)),
        *_events(names.ITEM, names.TYPE, names.TIME_MS, names.PREVIOUS_MS),
        *(_events(names.SESSION) if shape.session_ids else ()),
        Tensor(names.N_NEW, "int64", ("batch",)),
        _item_table(shape),
    )
    outputs = (*(_array(names.next_output(array.name), array) for array in layout.arrays), _hidden(shape))
    return Interface(inputs, outputs)


# What the last event read from a memory, of encoders that have one to show.
_READ_EVENTS = Tensor(names.READ_EVENTS, "float32", ("batch", "events"))
_MEMORY_READ: Mapping[str, tuple[Tensor, ...]] = {
    "memory_bank": (_READ_EVENTS, Tensor(names.READ_SLOTS, "float32", ("batch", "slots"))),
    "hierarchy": (
        _READ_EVENTS,
        Tensor(names.READ_SESSIONS, "int64", ("batch", "events")),
        Tensor(names.READ_HORIZONS, "float32", ("batch", "horizons")),
    ),
}


def step_explainer(shape: GraphShape, layout: StateLayout) -> Interface:
    """Returns the interface of `explainer.onnx` that was exported from the `step` of an encoder.

    It is that of the encoder, with the amount of each new event and, where the encoder has one, what it read from its
    memory.
    """
    encoder = step_encoder(shape, layout)
    amount = Tensor(names.AMOUNT, "float32", ("batch", "events"))
    return Interface((*encoder.inputs, amount), (*encoder.outputs, *_MEMORY_READ.get(shape.encoder, ())))


def _array(name: str, array: StateArray) -> Tensor:
    return Tensor(name, array.dtype, ("batch", *array.shape))


# What an encoder without a state reads beside the events.
_POSITION = Tensor(names.POSITION, "int64", ("events",))
_VALID = Tensor(names.VALID, "bool", ("batch", 1, "events"))
_QUERY = Tensor(names.QUERY, "int64", ("batch", "events", QUERY_GRAMS))
_HISTORY_INPUTS: Mapping[str, tuple[Tensor, ...]] = {
    "sasrec": (_POSITION,),
    "gru4rec": (),
    "bert4rec": (Tensor(names.ASKED, "bool", ("batch", "events", 1)), _POSITION, _VALID),
    "lstm_attention": (_VALID,),
    "encoder_decoder": (_POSITION,),
    "gpt2rec": (_POSITION,),
    "behaviours": (_POSITION,),
}
# Encoders that read the user's features, and the slots of their attention: the prefix token has one of its own.
_USER_SLOTS: Mapping[str, str] = {"prefix": "slots", "injected": "events"}


def history_encoder(shape: GraphShape) -> Interface:
    """Returns the interface of `encoder.onnx` without a state: a whole history → hidden state.

    Raises:
        KeyError: No graph is written for this encoder.
    """
    inputs = (
        *_events(names.ITEM, names.TYPE),
        *(_events(names.TIME_MS, names.PREVIOUS_MS) if shape.has_time else []),
        Tensor(names.LAST_ROW, "int64", ("batch",)),
        _item_table(shape),
        *_history_inputs(shape),
        *([_QUERY] if shape.query_buckets else []),
        *([Tensor(names.ITEM_ATTRIBUTES, "int64", ("rows", shape.attribute_slots))] if shape.attribute_slots else []),
    )
    return Interface(inputs, (_hidden(shape),))


def _history_inputs(shape: GraphShape) -> tuple[Tensor, ...]:
    """What the encoder reads beside the events and the item table."""
    slots = _USER_SLOTS.get(shape.encoder)
    if slots is None:
        return _HISTORY_INPUTS[shape.encoder]
    near, *others = _attention(slots)
    return (_context(shape), Tensor(near.name, near.dtype, (1, slots, slots)), *others)


def explainer(shape: GraphShape) -> Interface:
    """Returns the interface of `explainer.onnx`: a whole history → attention by event, and hidden state."""
    inputs = (
        *_events(names.ITEM, names.TYPE, names.TIME_MS, names.PREVIOUS_MS),
        Tensor(names.LAST_ROW, "int64", ("batch",)),
        Tensor(names.LAST, "float32", ("batch", 1, "events")),
        *_attention("events"),
        _item_table(shape),
    )
    return Interface(inputs, (Tensor(names.WEIGHT, "float32", ("batch", "events")), _hidden(shape)))


# Encoders without a state whose explainer shows their attention: that of the last state, or rolled out over the layers.
ROLLED_OUT = frozenset({"sasrec", "bert4rec", "encoder_decoder", "gpt2rec"})
_SHOW_ATTENTION = ROLLED_OUT | {"lstm_attention"}


def history_explainer(shape: GraphShape) -> Interface:
    """Returns the interface of `explainer.onnx` without a state: a whole history → attention by event, hidden state.

    An encoder that has no such attention takes the amount of each event instead, and outputs the hidden state alone.

    Raises:
        KeyError: No graph is written for this encoder.
    """
    encoder = history_encoder(shape)
    by_event = ("batch", "events")
    if shape.encoder in _SHOW_ATTENTION:
        return Interface(encoder.inputs, (Tensor(names.WEIGHT, "float32", by_event), *encoder.outputs))
    return Interface((*encoder.inputs, Tensor(names.AMOUNT, "float32", by_event)), encoder.outputs)


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
        _hidden(shape),
        _context(shape),
        Tensor(names.GAP, "float32", ("batch", 2)),
        Tensor(names.FILTER, "int64", ("batch",)),
        *itertools.chain.from_iterable(levels),
        Tensor(names.LEAF_ITEM, "int64", ("items",)),
        _item_table(shape),
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


def _events(*wanted: str) -> list[Tensor]:
    return [Tensor(name, "int64", ("batch", "events")) for name in wanted]


def _attention(slots: str) -> list[Tensor]:
    return [
        Tensor(names.NEAR, "bool", (1, "events", slots)),
        Tensor(names.SLOT, "int64", (1, 1, slots)),
        Tensor(names.SCORES, "int64", (4,)),
        Tensor(names.FOLDED, "int64", (3,)),
    ]


def _item_table(shape: GraphShape) -> Tensor:
    return Tensor(names.ITEM_TABLE, shape.compute, ("rows", shape.d_model))


def _context(shape: GraphShape) -> Tensor:
    return Tensor(names.CONTEXT, "int64", ("batch", shape.n_slots))


def _hidden(shape: GraphShape) -> Tensor:
    return Tensor(names.HIDDEN, "float32", ("batch", shape.d_model))


def _nodes_below(shape: GraphShape, level: int) -> str:
    return "items" if level == len(shape.code_sizes) - 1 else f"nodes_{level + 1}"
