"""The decoder as artefacts of before have it: masks are a byte for each node, and a dead node keeps its number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs.decoder import Beam, Children, DecoderGraph
from export.graphs.graph_writer import FLOAT, INT, GraphDtype, graph_shape
from model.network.config import NetworkConfig
from service.artifact.graphs import decoder_interface
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_interface import Dtype, GraphShape, Interface, Tensor
from service.artifact.graphs.graph_names import NEVER, level_input
from service.artifact.graphs.level_tables import levels_by_rows


def write_byte_mask_decoder(
    config: NetworkConfig,
    weights: Mapping[str, npt.NDArray[Any]],
    path: Path,
    dtype: GraphDtype,
    *,
    dense: bool = True,
    cells: bool = False,
) -> None:
    """Writes the graph, like `write_decoder`; its outputs are those of today's."""
    assert dense and not cells
    ByteMaskDecoder(byte_mask_interface(graph_shape(config, dtype)), config, weights, dtype).write(path)


def byte_mask_interface(shape: GraphShape) -> Interface:
    """Returns the interface of before, over the whole catalogue."""
    today = decoder_interface.decoder(shape, dense=True)
    replaced: dict[str, Tensor] = {}
    for level in range(1, len(shape.code_sizes)):
        nodes, by_rows = f"nodes_{level}", level in levels_by_rows(shape.code_sizes)
        size = shape.code_sizes[level]
        before: dict[str, tuple[Dtype, tuple[int | str, ...]]] = {names.TOKEN: ("int64", (f"below_{level}",))}
        if by_rows:
            before |= {names.ROW_OK: ("bool", (f"oks_{level}", size)), names.ROW_CHILD: ("int64", (nodes, size))}
            before |= {names.NODE_BASE: ("int64", (f"beams_{level}",))}
        else:
            before |= dict.fromkeys((names.FIRST, "count"), ("int64", (nodes, 1)))
            before |= {names.NODE_OK: ("bool", (f"oks_{level}",)), names.NODE_BASE: ("int64", (f"beams_{level}", 1))}
            before |= {names.SLOTS: ("int64", (f"slots_{level}",)), names.LAST_NODE: ("int64", (1,))}
        replaced |= {level_input(name, level): Tensor(level_input(name, level), *kind) for name, kind in before.items()}
    inputs = [tensor for tensor in today.inputs if tensor.name not in replaced and "child_ok" not in tensor.name]
    return Interface((*inputs, *replaced.values()), today.outputs)


class ByteMaskDecoder(DecoderGraph):
    """The levels as they were."""

    def children(self, level: int, beam: Beam) -> Children:
        """Adds existence and mask of every child, one by one."""
        op = self.op
        log_probs = self.token_log_probs(level, beam.state)
        if level_input(names.ROW_OK, level) in self.inputs:
            at = op.Add(beam.node, self.level_input(names.NODE_BASE, level))
            child, ok = None, op.Gather(self.level_input(names.ROW_OK, level), at, axis=0)
        else:
            slots = self.level_input(names.SLOTS, level)
            exists = op.Less(slots, op.Gather(self.level_input("count", level), beam.node, axis=0))
            child = op.Add(op.Gather(self.level_input(names.FIRST, level), beam.node, axis=0), slots)
            child = op.Min(child, self.level_input(names.LAST_NODE, level))
            at = op.Add(child, self.level_input(names.NODE_BASE, level))
            ok = op.And(exists, op.Gather(self.level_input(names.NODE_OK, level), at, axis=0))
            token = op.Gather(self.level_input(names.TOKEN, level), child, axis=0)
            log_probs = op.GatherElements(log_probs, token, axis=1)
        closed = op.Where(ok, self.floats(0.0), self.floats(NEVER))
        log_prob = op.Reshape(op.Add(op.Add(log_probs, beam.log_prob), closed), self.level_input(names.FLAT, level))
        return Children(child, self.close(level, beam, log_prob))

    def close(self, level: int, beam: Beam, log_prob: ir.Value) -> ir.Value:
        """Adds the closed nodes, of which the dead are no parents."""
        op = self.op
        alive = op.Greater(beam.log_prob, self.floats(NEVER / 2))
        kept = op.Where(alive, op.Reshape(beam.node, self.ints(-1, 1)), self.ints(-1))
        kept = op.Reshape(kept, self.level_input(names.BEAM, level))
        match = self.cast(op.Equal(kept, self.level_input(names.CLOSED_PARENT, level)), FLOAT)
        product = op.MatMul(self.level_input(names.PLACE, level), match)
        place, value = op.Split(product, axis=1, num_outputs=2, _outputs=2)
        first = op.Mul(self.cast(place, INT), self.level_input(names.N_SLOTS, level))
        at = op.Add(first, self.level_input(names.CLOSED_SLOT, level))
        closed: ir.Value = op.ScatterElements(log_prob, at, value, axis=2, reduction="add")
        return closed

    def nodes(self, level: int, beam: Beam, children: Children, chosen: Any) -> ir.Value:
        """Adds the nodes of the chosen, dead or not."""
        op = self.op
        if children.node is not None:
            nodes, at = children.node, chosen.flat
        else:
            row = op.Sub(op.Gather(beam.node, chosen.parent, axis=0), chosen.parent)
            nodes = self.level_input(names.ROW_CHILD, level)
            at = op.Add(chosen.flat, op.Mul(row, self.level_input(names.N_SLOTS, level)))
        value: ir.Value = op.Gather(op.Reshape(nodes, self.ints(-1)), at, axis=0)
        return value
