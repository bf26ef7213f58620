"""The parts of the decoder's network shared by all decoding graphs: the query, the levels and the token scores."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graphs.graph_writer import NetworkGraph
from service.artifact import graph_names as names


class DecoderNetwork(NetworkGraph):
    """A graph with the decoder's weights and the inputs of a request."""

    def query(self) -> ir.Value:
        """Returns q [B, d] = γ(context, gap) ⊙ norm(h) + β(context, gap)."""
        op, c = self.op, self.config
        table = self._weights["context.table.weight"][None] + self._weights["context.slot"].reshape(c.n_slots, 1, -1)
        table[:, 0] = 0.0  # row 0 is "unknown" in every slot
        rows = self.constant(table.reshape(-1, table.shape[2]).astype(np.float32), "context.rows")
        base = self.constant(np.arange(c.n_slots, dtype=np.int64) * table.shape[1], "context.base")
        known = op.ReduceSum(
            op.Gather(rows, op.Add(self.inputs[names.CONTEXT], base), axis=0), self.ints(1), keepdims=0
        )
        gap = [self._weights["context.gap.weight"].reshape(-1), self._weights["context.gap_known"].reshape(-1)]
        mixed = op.Gemm(self.inputs[names.GAP], self.constant(np.stack(gap).astype(np.float32), "context.gap"), known)
        bias = self._weights["context.modulate.bias"].copy()
        bias[: c.d_model] += 1.0
        modulation = op.Gemm(
            self.to_compute(self.silu(mixed)),
            self.matrix("context.modulate.weight"),
            self.constant(bias.astype(self.numpy_compute), "context.modulate.bias+1"),
        )
        gamma, beta = op.Split(modulation, axis=1, num_outputs=2, _outputs=2)
        hidden = self.norm(self.to_compute(self.inputs[names.HIDDEN]), "context.norm")
        value: ir.Value = op.Add(op.Mul(hidden, gamma), beta)
        return value

    def token_log_probs(self, level: int, state: ir.Value) -> ir.Value:
        """Returns [rows, V_l] float32 log-probabilities of the tokens of a level."""
        logits = self.gemm(self.norm(state, f"level_norm.{level}"), f"level_out.{level}")
        value: ir.Value = self.op.LogSoftmax(self.to_float(logits), axis=-1)
        return value

    def advance(self, level: int, state: ir.Value) -> ir.Value:
        """Returns the decoder state before a level: s + down(silu(up(norm(s)))). Level 0 starts from q."""
        name = f"advance.{level}"
        hidden = self.silu(self.gemm(self.norm(state, f"{name}.norm"), f"{name}.up"))
        value: ir.Value = self.op.Add(state, self.gemm(hidden, f"{name}.down"))
        return value
