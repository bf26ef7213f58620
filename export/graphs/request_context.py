"""What a graph computes from the rows of a context: the embeddings of its slots as one vector."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graphs.graph_writer import NetworkGraph
from service.artifact.graphs import graph_names as names


class ContextGraph(NetworkGraph):
    """A graph with the input CONTEXT."""

    def context_vector(self, slots: range) -> ir.Value:
        """Returns u [B, d_context] float32: the sum of the slots' embeddings, or what the MLP makes of them.

        Args:
            slots: The slots that count; the others are unknown.
        """
        op, c = self.op, self.config
        table = self._weights["context.table.weight"][None] + self._weights["context.slot"].reshape(c.n_slots, 1, -1)
        table[:, 0] = 0.0  # row 0 is "unknown" in every slot
        table[[slot for slot in range(c.n_slots) if slot not in slots]] = 0.0
        rows = self.constant(table.reshape(-1, table.shape[2]).astype(np.float32), "context.rows")
        base = self.constant(np.arange(c.n_slots, dtype=np.int64) * table.shape[1], "context.base")
        known = op.Gather(rows, op.Add(self.inputs[names.CONTEXT], base), axis=0)
        if c.user_vector == "sum":
            value: ir.Value = op.ReduceSum(known, self.ints(1), keepdims=0)
            return value
        joined: ir.Value = op.Reshape(known, self.ints(-1, c.n_slots * c.d_context))
        for layer in (0, 2):
            name = f"context.join.{layer}"
            weight = self.constant(self._weights[f"{name}.weight"].T.astype(np.float32), f"{name}.weight")
            bias = self.constant(self._weights[f"{name}.bias"].astype(np.float32), f"{name}.bias")
            joined = op.Gemm(joined if layer == 0 else self.silu(joined), weight, bias)
        return joined
