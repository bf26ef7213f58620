"""The decoder without its constraint: any code may follow any other. Two ways to be without it.

`FreeDecoderGraph` has no trie: no children are looked up, nothing is masked, and a survivor's token is its place among
the codes. Network, beam, the candidates with signals and the fused score are the same. What comes out are code paths,
most of which are no item; so that the score costs what it costs, each path is given a row of the item table by a hash.

`plain_tables` are inputs of the unchanged decoder over the whole code space: every node has every code for a child.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graphs.decoder import Beam, Children, Choice, DecoderGraph
from export.graphs.graph_writer import GraphDtype, graph_shape
from model.network.config import NetworkConfig
from service.artifact.array_types import Array
from service.artifact.graphs import decoder_interface
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_interface import GraphShape, Interface, Tensor
from service.artifact.graphs.graph_names import NEVER, level_input
from service.artifact.graphs.level_tables import levels_by_rows, levels_with_row_tokens, token_dtype

_FACTOR = 1_000_003


def write_free_decoder(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype = "float32"
) -> None:
    """Write the graph; its inputs and outputs are those of `free_interface`."""
    FreeDecoderGraph(free_interface(graph_shape(config, dtype)), config, weights, dtype).write(path)


def free_interface(shape: GraphShape) -> Interface:
    """Returns the decoder's interface without the trie's inputs, and with n_items [1].

    The number of children is the number of codes.
    """
    interface = decoder_interface.decoder(shape, dense=False)
    by_level = {
        tensor.name for level in range(len(shape.code_sizes)) for tensor in decoder_interface.level_inputs(shape, level)
    }
    for level in range(len(shape.code_sizes)):
        by_level -= {level_input(name, level) for name in (names.KEEP, names.FLAT, names.ROW_BASE)}
    inputs = [tensor for tensor in interface.inputs if tensor.name not in by_level]
    return Interface((*inputs, Tensor("n_items", "int64", (1,))), interface.outputs)


def free_shape(
    config: NetworkConfig, width: int, places: Callable[[NetworkConfig, int], int] | None = None
) -> dict[str, npt.NDArray[np.int64]]:
    """The inputs that follow from the width, for one row; `places` of a node's children, by default one a code."""
    values, kept = {}, 1
    for level, size in enumerate(config.code_sizes):
        if level > 0:
            place = size if places is None else places(config, level)
            values[f"flat_{level}"] = np.array([-1, 1, kept * place], np.int64)
            values[f"row_base_{level}"] = np.zeros((1, 1, 1), np.int64)
        kept = min(width, kept * size)
        values[f"keep_{level}"] = np.array([kept], np.int64)
    return values


def plain_tables(config: NetworkConfig, width: int) -> dict[str, Array]:
    """Inputs of `decoder.onnx` for one row: a node of a level is its last token, and every code follows it."""
    values: dict[str, Array] = {**free_shape(config, width, _places), "filter": np.zeros(1, np.int64)}
    with_tokens = levels_with_row_tokens(config.code_sizes)
    kept = 1
    for level, size in enumerate(config.code_sizes):
        above = config.code_sizes[level - 1] if level else 1
        tokens = np.arange(size, dtype=np.int64)
        values |= {f"token_{level}": tokens, f"closed_slot_{level}": np.zeros((1, 1, 1), np.int64)}
        if level == 0:
            values |= {"node_ok_0": np.ones((1, size), np.bool_), "closed_value_0": np.zeros((1, 1, 1), np.float32)}
        else:
            places = _places(config, level)
            first = np.zeros(above, np.int64)
            values |= {
                f"place_{level}": np.stack([np.arange(kept) * places, np.full(kept, NEVER)]).astype(np.float32),
                f"closed_parent_{level}": np.full((1, 1, 1), -2, np.int64),
                f"beam_{level}": np.array([-1, kept, 1], np.int64),
                f"n_slots_{level}": np.array([places], np.int64),
                f"node_base_{level}": np.zeros(kept, np.int64),
                f"row_ok_{level}": np.ones((above, size), np.int8),
                f"row_child_{level}": np.tile(tokens, above),
                f"child_ok_{level}": np.tile(np.packbits(np.arange(places) < size, bitorder="little"), (above, 1)),
                f"row_token_{level}": np.tile(np.resize(tokens, places).astype(token_dtype(size)), (above, 1)),
                f"first_{level}": first if level in with_tokens else first[:, None],
                f"slots_{level}": np.arange(places),
                f"last_node_{level}": np.array([size - 1], np.int64),
            }
        kept = min(width, kept * size)
    return values | {"leaf_item": np.arange(config.code_sizes[-1], dtype=np.int64) % config.n_items}


def _places(config: NetworkConfig, level: int) -> int:
    """Places of a node's children in the tables."""
    size = config.code_sizes[level]
    return size if level in levels_by_rows(config.code_sizes) else -(-size // 8) * 8


class FreeDecoderGraph(DecoderGraph):
    """The decoder graph without a trie."""

    name = "gpt4rec_free_decoder"

    def root_children(self, q: ir.Value) -> Children:
        """Adds every code of the first level."""
        self.begun = self.advance(0, q)
        self.first = self.token_log_probs(0, self.begun)
        return Children(None, self.op.Unsqueeze(self.first, self.ints(1)))

    def children(self, level: int, beam: Beam) -> Children:
        """Adds every code of a level as a child of every beam."""
        token_log_prob = self.token_log_probs(level, beam.state)
        log_prob = self.op.Add(token_log_prob, beam.log_prob)
        return Children(None, self.op.Reshape(log_prob, self.level_input(names.FLAT, level)))

    def survivors(self, level: int, beam: Beam | None, children: Children, choice: Choice) -> Beam:  # noqa: ARG002
        """Adds the beam of the chosen children."""
        op, d = self.op, self.config.d_model
        size, embedding = self.ints(self.config.code_sizes[level]), self.weight(f"level_token.{level}.weight")
        log_prob = op.Reshape(choice.log_prob, self.ints(-1, 1))
        if beam is None:
            added = op.Gather(embedding, choice.index, axis=0)
            state = op.Reshape(op.Add(added, op.Unsqueeze(self.begun, self.ints(1, 2))), self.ints(-1, d))
            return Beam(op.Reshape(choice.index, self.ints(-1)), log_prob, self.advance(level + 1, state))
        flat = op.Reshape(op.Add(choice.index, self.level_input(names.ROW_BASE, level)), self.ints(-1))
        place, token, node = self._path(beam, flat, size)
        state = op.Add(op.Gather(beam.state, place, axis=0), op.Gather(embedding, token, axis=0))
        return Beam(node, log_prob, self.advance(level + 1, state))

    def _path(self, beam: Beam, flat: ir.Value, size: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """A survivor's place in the beam, its token, and a hash of its path below the number of items."""
        op = self.op
        place = op.Div(flat, size)
        token = op.Sub(flat, op.Mul(place, size))
        path = op.Add(op.Mul(op.Gather(beam.node, place, axis=0), self.ints(_FACTOR)), token)
        return place, token, op.Mod(path, self.inputs["n_items"])

    def survivor_items(
        self,
        beam: Beam | None,
        children: Children,  # noqa: ARG002
        choice: Choice,
    ) -> tuple[ir.Value, ir.Value]:
        """As the constrained one's, with rows of the item table that stand in for items."""
        assert beam is not None  # noqa: S101 - there are several levels
        flat = self.op.Add(choice.index, self.level_input(names.ROW_BASE, self.config.levels - 1))
        _, _, item = self._path(beam, flat, self.ints(self.config.code_sizes[-1]))
        return item, choice.log_prob
