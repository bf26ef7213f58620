"""Shared by both samplers: the request's temperature, nucleus and seed, and noise from a hash."""

from __future__ import annotations

from functools import cached_property

import onnx_ir as ir

from export.graphs.decoder import DecoderGraph
from export.graphs.graph_writer import FLOAT
from service.artifact import graph_names as names
from service.artifact.graph_names import NEVER
from service.artifact.noise import PRIME, ROUND_KEYS

# Candidates outside the nucleus come after all that are inside. Their scores, which lie below NOISE_CEILING because no
# Gumbel noise exceeds it, become hugely negative. A product keeps float32's digits; subtracting a large number would
# round them away.
NOISE_CEILING = 32.0
OUTSIDE = 1e6


class SamplingGraph(DecoderGraph):
    """A decoder graph that reads the inputs of sampling: inverse temperature, top-p and hashed seed."""

    name = "gpt4rec_sampler"

    @cached_property
    def row(self) -> dict[str, ir.Value]:
        """The inputs of sampling by name, [B, 1, 1] each."""
        inputs = (names.INVERSE_TEMPERATURE, names.TOP_P, names.SEED)
        return {name: self.op.Unsqueeze(self.inputs[name], self.ints(1, 2)) for name in inputs}

    def last(self, key: ir.Value) -> ir.Value:
        """Moves keys below all others; their order stays the same."""
        value: ir.Value = self.op.Mul(self.op.Sub(key, self.floats(NOISE_CEILING)), self.floats(OUTSIDE))
        return value

    def nucleus(self, log_prob: ir.Value) -> ir.Value:
        """Returns which candidates are in the smallest set whose mass reaches top-p (Holtzman et al., 2020).

        Ties with its last member are included, so that the set does not depend on an order.
        """
        op = self.op
        size = op.Shape(log_prob, start=2, end=3)
        descending, _ = op.TopK(log_prob, size, axis=2, _outputs=2)
        before = op.CumSum(op.Exp(descending), self.scalar(2), exclusive=1)
        within = op.Less(before, self.row[names.TOP_P])
        least = op.ReduceMin(op.Where(within, descending, self.floats(-NEVER)), self.ints(2), keepdims=1)
        value: ir.Value = op.GreaterOrEqual(log_prob, least)
        return value

    def gumbel(self, node_hash: ir.Value) -> ir.Value:
        """Returns −log(−log u), where u is a hash of the seed and of (level, node) or the item."""
        op = self.op
        x = self.fifth_power(op.Mod(op.Add(node_hash, self.row[names.SEED]), self.ints(PRIME)))
        x = self.fifth_power(op.Mod(op.Add(x, self.ints(ROUND_KEYS[1])), self.ints(PRIME)))
        # 24 bits survive the cast to float32: drop the lower ones first, so that u never rounds to 1.
        x = op.Div(x, self.ints(2**8))
        u = op.Div(op.Add(self.cast(x, FLOAT), self.floats(0.5)), self.floats(float(2**23)))
        value: ir.Value = op.Neg(op.Log(op.Neg(op.Log(u))))
        return value

    def fifth_power(self, x: ir.Value) -> ir.Value:
        """Returns x⁵ mod p, like `service.artifact.noise.fifth_power`."""
        op, prime = self.op, self.ints(PRIME)
        square = op.Mod(op.Mul(x, x), prime)
        fourth = op.Mod(op.Mul(square, square), prime)
        value: ir.Value = op.Mod(op.Mul(fourth, x), prime)
        return value
