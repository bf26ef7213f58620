"""Linear layers in integers, for int8 graphs: activations of 8 bits, weights of 7, sums of 32.

Scales are fixed when the graph is written. Scales that are measured in the run (`DynamicQuantizeLinear`) are those of
a whole batch, so a list would depend on the others of its batch.

- After a layer norm every row has mean 0 and variance 1 before the affine part, which is folded into the weights. Its
  integers reach `REACH` standard deviations; what lies beyond is cut off.
- What such a layer computes has the standard deviation ‖w‖ for each output, and reaches as many of them.

Processors without VNNI add two products of 8 bits each in 16 bits, which overflows; with weights of 7 bits it does not.
onnxruntime has no CUDA kernel for unsigned activations, so int8 graphs are for processors alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graphs.graph_writer import FLOAT, NORM_EPSILON, GraphWriter

REACH = 5.0
_WEIGHT_MAX = 63
_ACTIVATION_MAX = 255
_SILU_LEAST = 0.2785  # the least value of x · sigmoid(x), negated

Floats = npt.NDArray[Any]


def after_norm(
    graph: GraphWriter, x: ir.Value, norm: tuple[Floats, Floats], layer: tuple[Floats, Floats], name: str
) -> ir.Value:
    """Returns W · norm(x) + b for rows [n, in].

    Args:
        graph: Where the nodes go.
        x: [n, in] float32.
        norm: γ and β of the layer norm.
        layer: W [out, in] and b.
        name: Name of the layer.
    """
    weight, bias = _folded(norm, layer)
    size = weight.shape[1]
    ones, zeros = graph.constant(np.ones(size, np.float32), f"ones_{size}"), np.zeros(size, np.float32)
    unit = graph.op.LayerNormalization(x, ones, graph.constant(zeros, f"zeros_{size}"), axis=-1, epsilon=NORM_EPSILON)
    return _product(graph, unit, weight, bias, -REACH, REACH, name)


def after_silu(
    graph: GraphWriter, hidden: ir.Value, norm: tuple[Floats, Floats], before: tuple[Floats, Floats],
    layer: tuple[Floats, Floats], name: str,
) -> ir.Value:  # fmt: skip
    """Returns W · hidden + b, where `hidden` [n, in] is silu of `after_norm` with `norm` and `before`."""
    weight, bias = _folded(norm, before)
    most = float((np.abs(bias) + REACH * np.linalg.norm(weight, axis=1)).max())
    return _product(graph, hidden, *layer, -_SILU_LEAST, most, name)


def _folded(norm: tuple[Floats, Floats], layer: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """W and b of a layer behind a norm without its affine part."""
    (scale, shift), (weight, bias) = norm, layer
    return weight * scale, bias + weight @ shift


def _product(
    graph: GraphWriter, x: ir.Value, weight: Floats, bias: Floats, low: float, high: float, name: str
) -> ir.Value:
    """W · x + b, x in integers from `low` to `high`."""
    op, step = graph.op, (high - low) / _ACTIVATION_MAX
    by_output = np.maximum(np.abs(weight).max(axis=1), 1e-8) / _WEIGHT_MAX
    quantised = np.round(weight / by_output[:, None]).astype(np.int8).T
    zero = graph.constant(np.array(round(-low / step), np.uint8), f"{name}.zero")
    rounded = op.QuantizeLinear(x, graph.constant(np.array(step, np.float32), f"{name}.step"), zero)
    product = op.MatMulInteger(rounded, graph.constant(np.ascontiguousarray(quantised), f"{name}.int8"), zero)
    scale = graph.constant((by_output * step).astype(np.float32), f"{name}.scale")
    # onnxruntime makes one kernel of these three and the product.
    scaled = op.Mul(graph.cast(product, FLOAT), scale)
    value: ir.Value = op.Add(scaled, graph.constant(bias.astype(np.float32), f"{name}.folded"))
    return value
