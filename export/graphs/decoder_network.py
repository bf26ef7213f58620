"""The parts of the decoder's network shared by all decoding graphs: the query, the levels and the token scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graphs import integer_layers
from export.graphs.request_context import ContextGraph
from model.network.encoders.registry import encoder_class
from service.artifact.graphs import graph_names as names


class DecoderNetwork(ContextGraph):
    """A graph with the decoder's weights and the inputs of a request."""

    def query(self) -> ir.Value:
        """Returns q [B, d] = γ(context, gap) ⊙ norm(h) + β(context, gap)."""
        op, c = self.op, self.config
        read_by_encoder = c.n_fields if encoder_class(c.encoder).reads_context else 0
        known = self.context_vector(range(read_by_encoder, c.n_slots))
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
        hidden = self.norm(self.prompted(self.to_compute(self.inputs[names.HIDDEN])), "context.norm")
        value: ir.Value = op.Add(op.Mul(hidden, gamma), beta)
        return value

    def prompted(self, hidden: ir.Value) -> ir.Value:
        """Returns h [B, d] plus what it reads of the soft prompts of its scene or segment (`SoftPrompts`)."""
        op, c = self.op, self.config
        if not c.prompts:
            return hidden
        place = np.zeros(c.n_context_rows, np.int64)
        place[c.prompt_first : c.prompt_first + c.prompt_rows] = np.arange(c.prompt_rows) + 1
        vectors = self._weights["prompts.vectors"]
        table = np.concatenate([np.zeros_like(vectors[:1]), vectors]).astype(self.numpy_compute)
        row = op.Gather(self.inputs[names.CONTEXT], self.scalar(c.prompt_slot), axis=1)
        row = op.Gather(self.constant(place, "prompts.place"), row, axis=0)
        prompts = op.Gather(self.constant(table, "prompts.table"), row, axis=0)
        query = op.Unsqueeze(self.norm(hidden, "prompts.norm"), self.ints(1))
        score = self.to_float(op.MatMul(query, op.Transpose(prompts, perm=[0, 2, 1])))
        weight = self.to_compute(op.Softmax(op.Mul(score, self.floats(c.d_model**-0.5)), axis=-1))
        value: ir.Value = op.Add(hidden, op.Squeeze(op.MatMul(weight, prompts), self.ints(1)))
        return value

    def token_log_probs(self, level: int, state: ir.Value) -> ir.Value:
        """Returns [rows, V_l] float32 log-probabilities of the tokens of a level."""
        logits = self._after_norm(state, f"level_norm.{level}", f"level_out.{level}")
        value: ir.Value = self.op.LogSoftmax(self.to_float(logits), axis=-1)
        return value

    def advance(self, level: int, state: ir.Value) -> ir.Value:
        """Returns the decoder state before a level: s + down(silu(up(norm(s)))). Level 0 starts from q."""
        name = f"advance.{level}"
        hidden = self.silu(self._after_norm(state, f"{name}.norm", f"{name}.up"))
        if self.dtype == "int8":
            norm, up, down = (self._affine(f"{name}.{part}") for part in ("norm", "up", "down"))
            added = integer_layers.after_silu(self, hidden, norm, up, down, f"{name}.down")
        else:
            added = self.gemm(hidden, f"{name}.down")
        value: ir.Value = self.op.Add(state, added)
        return value

    def _after_norm(self, x: ir.Value, norm: str, layer: str) -> ir.Value:
        if self.dtype == "int8":
            return integer_layers.after_norm(self, x, self._affine(norm), self._affine(layer), layer)
        return self.gemm(self.norm(x, norm), layer)

    def _affine(self, layer: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return self._weights[f"{layer}.weight"], self._weights[f"{layer}.bias"]
