"""`sampler.onnx` where dense candidates join: sampled lists (top-p, temperature), drawn by the blend of both scores.

The candidates are those of a deterministic list: the beam's and the best by q · e over the whole catalogue. The list is
drawn from them without replacement, with Gumbel noise on score ÷ temperature (Gumbel-top-k, Kool, van Hoof and Welling,
2019; restricted to the most probable candidates, as in Fan et al., 2018). A path says which cell an item is in, but
little about the items of a cell, so drawing by the path alone loses far more accuracy for the same diversity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs.graph_writer import GraphDtype, graph_shape
from export.graphs.sampling import SamplingGraph
from model.network.config import NetworkConfig
from service.artifact import graph_interface
from service.artifact import graph_names as names
from service.artifact.graph_names import NEVER


def write_blend_sampler(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Writes the sampler; `service.artifact.graph_interface.blend_sampler` describes its inputs and outputs."""
    interface = graph_interface.blend_sampler(graph_shape(config, dtype))
    BlendSamplerGraph(interface, config, weights, dtype).write(path)


class BlendSamplerGraph(SamplingGraph):
    """The decode with dense candidates, from which the list is drawn at the end."""

    def output_lists(self, item: ir.Value, score: ir.Value, log_prob: ir.Value) -> None:
        """Draws from all candidates [B, 1, W + D]; those outside the nucleus come next, empty places last."""
        op, keep = self.op, self.level_input(names.KEEP, self.config.levels - 1)
        alive = op.Greater(score, self.floats(NEVER / 2))
        tempered = op.Where(alive, op.Mul(score, self.row[names.INVERSE_TEMPERATURE]), self.floats(NEVER))
        phi = op.LogSoftmax(tempered, axis=-1)
        noise = self.gumbel(op.Gather(self.inputs[names.ITEM_HASH], op.Max(item, self.ints(0)), axis=0))
        perturbed = op.Add(phi, noise)
        key = op.Where(self.nucleus(phi), perturbed, self.last(perturbed))
        key = op.Where(alive, key, self.floats(NEVER))
        _, order = op.TopK(key, keep, axis=2, _outputs=2)

        def take(x: ir.Value) -> ir.Value:
            value: ir.Value = op.GatherElements(x, order, axis=2)
            return value

        self.write_lists(take(item), take(score), take(log_prob))
