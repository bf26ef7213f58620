"""`sampler.onnx`: sampled lists (top-p, temperature), drawn from all candidates by the fused score.

The candidates are those of a deterministic list: the beam's, and the best of the catalogue or of the items with
signals. The list is drawn from them without replacement, with Gumbel noise on score ÷ temperature (Gumbel-top-k, Kool,
van Hoof and Welling, 2019; restricted to the most probable candidates, as in Fan et al., 2018). So the items come up as
in the Plackett–Luce model whose weights are exp(score ÷ temperature). A path says which cell an item is in, but little
about the items of a cell, so drawing by the path alone loses far more accuracy for the same diversity.

The graph outputs the law of its draw: the log-probability of each item given those above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs.decoder import DecoderGraph
from export.graphs.graph_writer import FLOAT, INT, GraphDtype, graph_shape
from model.network.config import NetworkConfig
from service.artifact.graphs import decoder_interface
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_names import NEVER
from service.artifact.graphs.noise import PRIME, ROUND_KEYS

# Candidates outside the nucleus come after all that are inside. Their scores, which lie below NOISE_CEILING because no
# Gumbel noise exceeds it, become hugely negative. A product keeps float32's digits; subtracting a large number would
# round them away.
NOISE_CEILING = 32.0
OUTSIDE = 1e6


def write_sampler(
    config: NetworkConfig,
    weights: Mapping[str, npt.NDArray[Any]],
    path: Path,
    dtype: GraphDtype,
    *,
    dense: bool = False,
    cells: bool = False,
) -> None:
    """Writes `sampler.onnx`; the arguments are those of `export.graphs.decoder.write_decoder`."""
    interface = decoder_interface.sampler(graph_shape(config, dtype), dense=dense, cells=cells)
    SamplerGraph(interface, config, weights, dtype).write(path)


class SamplerGraph(DecoderGraph):
    """The decode, from whose candidates the list is drawn at the end."""

    name = "gpt4rec_sampler"

    def output_lists(self, item: ir.Value, score: ir.Value, log_prob: ir.Value) -> None:
        """Draws from all candidates [B, 1, W + D]; those outside the nucleus come next, empty places last."""
        op = self.op
        alive = op.Greater(score, self.floats(NEVER / 2))
        tempered = op.Where(alive, op.Mul(score, self.row[names.INVERSE_TEMPERATURE]), self.floats(NEVER))
        phi = op.LogSoftmax(tempered, axis=-1)
        noise = self.gumbel(op.Gather(self.inputs[names.ITEM_HASH], op.Max(item, self.ints(0)), axis=0))
        perturbed = op.Add(phi, noise)
        inside = self.nucleus(phi)
        key = op.Where(inside, perturbed, self.last(perturbed))
        key = op.Where(alive, key, self.floats(NEVER))
        # All of them in order, not only those that are listed: what is left at each position has part in its law.
        _, order = op.TopK(key, op.Shape(key, start=2, end=3), axis=2, _outputs=2)
        self.output(self.log_propensities(phi, inside, order), names.LOG_PROPENSITY)
        self.output(score, names.CANDIDATE_SCORE)
        listed = self.kept(order)

        def take(x: ir.Value) -> ir.Value:
            value: ir.Value = op.GatherElements(x, listed, axis=2)
            return value

        self.write_lists(take(item), take(score), take(log_prob))

    def log_propensities(self, phi: ir.Value, inside: ir.Value, order: ir.Value) -> ir.Value:
        """Returns the log-probability [B, 1, W] of each draw, given those before it.

        At each position that is φ of the item less the log-sum-exp of φ over what is not drawn yet of the same part:
        the nucleus, or what lies outside. A log-softmax for each position keeps all digits, however small the weights
        that are left are beside those that are gone; a sum from the end would lose them.

        Args:
            phi: [B, 1, C] log-weights of the candidates.
            inside: [B, 1, C] which of them are in the nucleus.
            order: [B, 1, C] their places, in the order of the draw.
        """
        op = self.op
        phi = op.GatherElements(phi, order, axis=2)
        part = op.GatherElements(self.cast(inside, FLOAT), order, axis=2)
        rank = op.CumSum(op.Add(op.Mul(part, self.floats(0.0)), self.floats(1.0)), self.scalar(2), exclusive=1)
        position = self.column(rank)
        may = op.And(op.GreaterOrEqual(rank, position), op.Equal(part, self.column(part)))
        law = op.LogSoftmax(op.Where(may, phi, self.floats(NEVER)), axis=-1)
        own = op.GatherElements(law, self.cast(position, INT), axis=2)
        value: ir.Value = op.Transpose(own, perm=[0, 2, 1])
        return value

    def kept(self, x: ir.Value) -> ir.Value:
        """Returns the first W of [B, 1, C]."""
        keep = self.level_input(names.KEEP, self.config.levels - 1)
        value: ir.Value = self.op.Slice(x, self.ints(0), keep, self.ints(2))
        return value

    def column(self, x: ir.Value) -> ir.Value:
        """Returns the first W of [B, 1, C] as a column [B, W, 1]."""
        value: ir.Value = self.op.Transpose(self.kept(x), perm=[0, 2, 1])
        return value

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

    def gumbel(self, item_hash: ir.Value) -> ir.Value:
        """Returns −log(−log u), where u is a hash of the seed and the item."""
        op = self.op
        x = self.fifth_power(op.Mod(op.Add(item_hash, self.row[names.SEED]), self.ints(PRIME)))
        x = self.fifth_power(op.Mod(op.Add(x, self.ints(ROUND_KEYS[1])), self.ints(PRIME)))
        # 24 bits survive the cast to float32: drop the lower ones first, so that u never rounds to 1.
        x = op.Div(x, self.ints(2**8))
        u = op.Div(op.Add(self.cast(x, FLOAT), self.floats(0.5)), self.floats(float(2**23)))
        value: ir.Value = op.Neg(op.Log(op.Neg(op.Log(u))))
        return value

    def fifth_power(self, x: ir.Value) -> ir.Value:
        """Returns x⁵ mod p, like `service.artifact.graphs.noise.fifth_power`."""
        op, prime = self.op, self.ints(PRIME)
        square = op.Mod(op.Mul(x, x), prime)
        fourth = op.Mod(op.Mul(square, square), prime)
        value: ir.Value = op.Mod(op.Mul(fourth, x), prime)
        return value
