"""Layers in integers are close to those in floats, never overflow 16 bits, and no row depends on the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from export.graphs import integer_layers
from export.graphs.graph_writer import GraphWriter
from service.artifact.array_types import Array
from service.artifact.graphs.graph_interface import Interface, Tensor

ROWS, IN, HIDDEN = 48, 24, 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph x → W₂ · silu(W₁ · norm(x) + b₁) + b₂ in integers."""
    path = tmp_path_factory.mktemp("graph") / "graph.onnx"
    tensors = [Tensor(name, "float32", ("rows", IN)) for name in ("x", "y")]
    graph = GraphWriter("layers", Interface((tensors[0],), (tensors[1],)), {}, "int8")
    norm, up, down = weights()
    hidden = graph.silu(integer_layers.after_norm(graph, graph.inputs["x"], norm, up, "up"))
    graph.output(integer_layers.after_silu(graph, hidden, norm, up, down, "down"), "y")
    graph.save(path)
    return path


def weights() -> list[tuple[Array, Array]]:
    """γ and β of the norm; W and b of both layers."""
    rng = np.random.default_rng(0)
    norm = rng.uniform(0.5, 1.5, IN), rng.normal(0, 0.3, IN)
    up = rng.normal(0, 0.3, (HIDDEN, IN)), rng.normal(0, 0.5, HIDDEN)
    down = rng.normal(0, 0.3, (IN, HIDDEN)), rng.normal(0, 0.5, IN)
    return [(one.astype(np.float32), other.astype(np.float32)) for one, other in (norm, up, down)]


def in_floats(x: Array) -> Array:
    (scale, shift), (up, up_bias), (down, down_bias) = weights()
    unit = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    u = (unit * scale + shift) @ up.T + up_bias
    y: Array = u / (1 + np.exp(-u)) @ down.T + down_bias
    return y


def run(path: Path, x: Array) -> Array:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    y: Array = session.run(["y"], {"x": x})[0]
    return y


def states(scale: float) -> Array:
    return (np.random.default_rng(1).standard_normal((ROWS, IN)) * scale).astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_layers_in_integers_are_close_to_those_in_floats_at_any_scale(path: Path, scale: float) -> None:
    x = states(scale)
    want = in_floats(x)
    error = np.abs(run(path, x) - want)
    assert error.mean() < 0.03 * want.std()
    assert error.max() < 0.15 * want.std()


def test_a_row_does_not_depend_on_the_other_rows(path: Path) -> None:
    x = states(1.0)
    together = run(path, np.concatenate([x, states(50.0)]))[:ROWS]
    alone = np.concatenate([run(path, row[None]) for row in x])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_two_products_fit_into_16_bits(path: Path) -> None:
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    matrices = [array for array in tensors if array.dtype == np.int8]
    assert len(matrices) == 2
    assert all(2 * 255 * int(np.abs(array.astype(int)).max()) < 2**15 for array in matrices)


def test_a_value_beyond_the_reach_of_the_integers_is_cut_off(path: Path) -> None:
    # One of the inputs alone is not 0: its norm is √(n − 1) standard deviations, less than the reach or not.
    x = np.zeros((1, IN), np.float32)
    x[0, 3] = 1e6
    assert np.sqrt(IN - 1) < integer_layers.REACH
    np.testing.assert_allclose(run(path, x), in_floats(x), atol=0.2 * in_floats(x).std())
    assert np.isfinite(run(path, np.full((1, IN), 3e38, np.float32) * np.eye(IN, dtype=np.float32)[:1])).all()


def test_the_operators_are_those_of_the_standard(path: Path) -> None:
    model = ir.load(path)
    assert {node.domain for node in model.graph} == {""}
    assert {"QuantizeLinear", "MatMulInteger"} <= {node.op_type for node in model.graph}
