"""`sampler.onnx` for large catalogues: sampled lists (top-p, temperature), from paths drawn without replacement.

This is stochastic beam search (Kool, van Hoof and Welling, 2019): perturbed scores G, whose maximum over the children
equals the parent's G. The noise is a hash of (seed, level, node), so it depends on neither slot nor batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs.decoder import Children, Choice
from export.graphs.graph_writer import FLOAT, GraphDtype, graph_shape
from export.graphs.sampling import SamplingGraph
from model.network.config import NetworkConfig
from service.artifact import graph_interface
from service.artifact import graph_names as names
from service.artifact.graph_names import NEVER


def write_sampler(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Writes the sampler; `service.artifact.graph_interface.path_sampler` describes its inputs and outputs."""
    interface = graph_interface.path_sampler(graph_shape(config, dtype))
    SamplerGraph(interface, config, weights, dtype).write(path)


@dataclass(frozen=True)
class Drawn:
    """What sampling keeps between levels, [B, 1, W] each.

    Attributes:
        phi: Log-probability under the sampling distribution.
        perturbed: Perturbed score G.
        outside: 1 outside the nucleus, else 0.
    """

    phi: ir.Value
    perturbed: ir.Value
    outside: ir.Value


class SamplerGraph(SamplingGraph):
    """The decode, which draws candidates at every level instead of keeping the best."""

    drawn: Drawn | None = None

    def choose(self, level: int, children: Children) -> Choice:
        """Draws `keep_l` of all candidates."""
        op, node_hash = self.op, self.level_input(names.NODE_HASH, level)
        if level == 0:
            log_prob, token = children.log_prob, op.Unsqueeze(children.token_log_prob, self.ints(1))
            noise = self.gumbel(node_hash)
        else:
            cube = self.level_input(names.CUBE, level)
            log_prob = op.Reshape(children.log_prob, cube)
            token = op.Reshape(children.token_log_prob, cube)
            noise = self.gumbel(op.Reshape(op.Gather(node_hash, children.node, axis=0), cube))
        ok = op.Greater(log_prob, self.floats(NEVER / 2))
        drawn = self.perturb(level, ok, token, noise)
        key = op.Where(op.Greater(drawn.outside, self.floats(0.5)), self.last(drawn.perturbed), drawn.perturbed)
        key = self.flat(level, op.Where(ok, key, self.floats(NEVER)))
        _, index = op.TopK(key, self.level_input(names.KEEP, level), axis=2, _outputs=2)

        def take(x: ir.Value) -> ir.Value:
            value: ir.Value = op.GatherElements(self.flat(level, x), index, axis=2)
            return value

        self.drawn = Drawn(take(drawn.phi), take(drawn.perturbed), take(drawn.outside))
        return Choice(take(log_prob), index)

    def flat(self, level: int, x: ir.Value) -> ir.Value:
        """Reshapes [B, W, C] to [B, 1, WC]."""
        value: ir.Value = x if level == 0 else self.op.Reshape(x, self.level_input(names.FLAT, level))
        return value

    def perturb(self, level: int, ok: ir.Value, token: ir.Value, noise: ir.Value) -> Drawn:
        """Returns sampling log-probability, perturbed score and nucleus flag of every child, [B, W, C] each.

        Inside the nucleus, G is conditioned on its maximum being the parent's G. Outside it is not, since those nodes
        come after all others anyway.
        """
        op = self.op
        tempered = op.Mul(token, self.row[names.INVERSE_TEMPERATURE])
        over_all = op.LogSoftmax(op.Where(ok, tempered, self.floats(NEVER)), axis=-1)
        inside = op.And(ok, self.nucleus(over_all))
        over_nucleus = op.LogSoftmax(op.Where(inside, tempered, self.floats(NEVER)), axis=-1)
        phi = op.Where(inside, over_nucleus, over_all)
        parent = self.floats(0.0)
        outside = op.Sub(self.floats(1.0), self.cast(inside, FLOAT))
        if self.drawn is not None:
            beam = self.level_input(names.BEAM, level)
            phi = op.Add(op.Reshape(self.drawn.phi, beam), phi)
            parent = op.Reshape(self.drawn.perturbed, beam)
            outside = op.Max(op.Reshape(self.drawn.outside, beam), outside)
        phi = op.Max(phi, self.floats(NEVER))
        noisy = op.Add(phi, noise)
        contenders = op.Where(inside, noisy, self.floats(NEVER))
        top = op.ReduceMax(contenders, self.ints(2), keepdims=1)
        # G̃ = −log(exp(−G) − exp(−Z) + exp(−g)), in the stable form of the paper's appendix.
        below_top = op.Min(op.Sub(contenders, top), self.floats(0.0))
        v = op.Add(op.Sub(parent, contenders), self.log(op.Sub(self.floats(1.0), op.Exp(below_top))))
        conditioned = op.Sub(
            op.Sub(parent, op.Max(v, self.floats(0.0))),
            op.Log(op.Add(self.floats(1.0), op.Exp(op.Neg(op.Abs(v))))),
        )
        return Drawn(phi, op.Where(inside, conditioned, noisy), outside)

    def log(self, x: ir.Value) -> ir.Value:
        """Returns log x, with a large negative number instead of −∞ for log 0."""
        value: ir.Value = self.op.Log(self.op.Max(x, self.floats(1e-30)))
        return value

    def output_lists(self, item: ir.Value, score: ir.Value, log_prob: ir.Value) -> None:
        """Outputs the lists in the order of the draw, which the last choice already has; empty places are last."""
        self.write_lists(item, score, log_prob)
