"""`sampler.onnx` of large catalogues: sampled lists (top-p, temperature), paths drawn without replacement.

Stochastic beam search (Kool, van Hoof and Welling, 2019): perturbed scores G whose maximum over the children equals the
parent's G. The noise is a hash of (seed, level, node), so that it depends on neither slot nor batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs.decoder import Children, Choice
from export.graphs.graph_writer import FLOAT, INT, GraphDtype
from export.graphs.sampling import SamplingGraph
from model.network.config import NetworkConfig
from service.artifact.graph_interface import NEVER


def write_sampler(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Inputs beside those of `export.graphs.decoder.write_decoder` and `export.graphs.sampling`: node_hash_l [n_{l+1}],
    cube_l = [−1, W_{l−1}, C_l], for l ≥ 1. The same outputs; items in the order they were drawn in."""
    SamplerGraph(config, weights, dtype).write(path)


@dataclass(frozen=True)
class Drawn:
    """What sampling keeps between levels, [B, 1, W] each: log-probability of the sampling distribution, perturbed
    score, 1 outside the nucleus."""

    phi: ir.Value
    perturbed: ir.Value
    outside: ir.Value


class SamplerGraph(SamplingGraph):
    # Noise costs more for every place than a lookup, so paths are drawn among the children that there are.
    by_rows = False
    drawn: Drawn | None = None

    def level_inputs(self, level: int) -> dict[str, ir.Value]:
        inputs = super().level_inputs(level)
        below = "items" if level == self.config.levels - 1 else f"nodes_{level + 1}"
        inputs["node_hash"] = self.input(f"node_hash_{level}", INT, [below])
        if level > 0:
            inputs["cube"] = self.input(f"cube_{level}", INT, [3])
        return inputs

    def choose(self, level: int, children: Children) -> Choice:
        """Draw `keep_level` of all candidates."""
        op, inputs = self.op, self.levels[level]
        if level == 0:
            log_prob, token = children.log_prob, op.Unsqueeze(children.token_log_prob, self.ints(1))
            noise = self.gumbel(inputs["node_hash"])
        else:
            log_prob = op.Reshape(children.log_prob, inputs["cube"])
            token = op.Reshape(children.token_log_prob, inputs["cube"])
            noise = self.gumbel(op.Reshape(op.Gather(inputs["node_hash"], children.node, axis=0), inputs["cube"]))
        ok = op.Greater(log_prob, self.floats(NEVER / 2))
        drawn = self.perturb(level, ok, token, noise)
        key = op.Where(op.Greater(drawn.outside, self.floats(0.5)), self.last(drawn.perturbed), drawn.perturbed)
        key = self.flat(level, op.Where(ok, key, self.floats(NEVER)))
        _, index = op.TopK(key, inputs["keep"], axis=2, _outputs=2)

        def take(x: ir.Value) -> ir.Value:
            value: ir.Value = op.GatherElements(self.flat(level, x), index, axis=2)
            return value

        self.drawn = Drawn(take(drawn.phi), take(drawn.perturbed), take(drawn.outside))
        return Choice(take(log_prob), index)

    def flat(self, level: int, x: ir.Value) -> ir.Value:
        """[B, W, C] → [B, 1, WC]."""
        value: ir.Value = x if level == 0 else self.op.Reshape(x, self.levels[level]["flat"])
        return value

    def perturb(self, level: int, ok: ir.Value, token: ir.Value, noise: ir.Value) -> Drawn:
        """Sampling log-probability, perturbed score and nucleus flag of every child, [B, W, C].

        Inside the nucleus G is conditioned on its maximum being the parent's G; outside it is plain, since those
        nodes come after all others anyhow.
        """
        op = self.op
        tempered = op.Mul(token, self.row["inverse_temperature"])
        over_all = op.LogSoftmax(op.Where(ok, tempered, self.floats(NEVER)), axis=-1)
        inside = op.And(ok, self.nucleus(over_all))
        over_nucleus = op.LogSoftmax(op.Where(inside, tempered, self.floats(NEVER)), axis=-1)
        phi = op.Where(inside, over_nucleus, over_all)
        parent = self.floats(0.0)
        outside = op.Sub(self.floats(1.0), self.cast(inside, FLOAT))
        if self.drawn is not None:
            beam = self.levels[level]["beam"]
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
        """log x, with log 0 a large negative number instead of −∞."""
        value: ir.Value = self.op.Log(self.op.Max(x, self.floats(1e-30)))
        return value

    def output_lists(self, item: ir.Value, score: ir.Value, log_prob: ir.Value) -> None:
        """In the order of the draw, which the last choice is in; candidates that are none are last."""
        self.write_lists(item, score, log_prob)
