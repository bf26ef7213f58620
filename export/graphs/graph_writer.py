"""Writing ONNX graphs op by op.

The graphs are written, not traced. Every node is chosen here, which keeps the graphs within the operators and types
that onnxruntime's CUDA provider supports. `GraphWriter` adds to onnxscript's builder what all graphs need: declared
inputs and outputs, weights in the graph's precision, layer norms and linear layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxscript import GraphBuilder

from model.network.config import NetworkConfig
from service.artifact.graphs.graph_interface import Compute, Dtype, GraphShape, Interface
from service.artifact.graphs.graph_names import level_input

GraphDtype = Literal["float32", "float16", "int8"]

OPSET = 20
IR_VERSION = 10
NORM_EPSILON = 1e-5

INT = ir.DataType.INT64
INT32 = ir.DataType.INT32
FLOAT = ir.DataType.FLOAT
HALF = ir.DataType.FLOAT16
INT8 = ir.DataType.INT8

DATA_TYPES: Mapping[Dtype, ir.DataType] = {
    "bool": ir.DataType.BOOL,
    "int8": INT8,
    "uint8": ir.DataType.UINT8,
    "int32": INT32,
    "int64": INT,
    "float16": HALF,
    "float32": FLOAT,
}


def compute_type(dtype: GraphDtype) -> Compute:
    """Returns the type of a graph's activations: int8 graphs store weights as int8, but compute in float32."""
    return "float16" if dtype == "float16" else "float32"


def graph_shape(config: NetworkConfig, dtype: GraphDtype) -> GraphShape:
    """Returns the properties that determine the interfaces of a network's graphs."""
    return GraphShape.of(config.to_json(), compute_type(dtype))


class GraphWriter:
    """A graph under construction.

    Its inputs are declared at once, in the order of its interface. int8 graphs keep linear weights as int8 with one
    scale for each output, and compute in float32.

    Attributes:
        inputs: The graph's inputs by name.
        compute: Type of the activations.
    """

    def __init__(
        self, name: str, interface: Interface, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype
    ) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=name)
        self.builder = GraphBuilder(self.graph)
        self.op = self.builder.op
        self.dtype: GraphDtype = dtype
        self.compute = DATA_TYPES[compute_type(dtype)]
        self.numpy_compute = np.float16 if dtype == "float16" else np.float32
        self.inputs: Mapping[str, ir.Value] = {
            tensor.name: self.builder.input(tensor.name, DATA_TYPES[tensor.dtype], tensor.shape)
            for tensor in interface.inputs
        }
        self._outputs = {tensor.name: tensor for tensor in interface.outputs}
        self._weights = weights
        self._made: dict[str, ir.Value] = {}

    def level_input(self, name: str, level: int) -> ir.Value:
        """Returns the input `name` of one level."""
        return self.inputs[level_input(name, level)]

    def output(self, value: ir.Value, name: str) -> None:
        """Makes a value the output `name` of the interface.

        Raises:
            KeyError: The interface has no such output.
        """
        tensor = self._outputs[name]
        value.type, value.shape = ir.TensorType(DATA_TYPES[tensor.dtype]), ir.Shape(tensor.shape)
        self.builder.add_output(value, name)

    def constant(self, array: npt.NDArray[Any], name: str) -> ir.Value:
        """Returns an initializer, which is stored once under its name."""
        if name not in self._made:
            self._made[name] = self.builder.initializer(ir.tensor(array, name=name), name=name)
        return self._made[name]

    def ints(self, *values: int) -> ir.Value:
        """Returns a one-dimensional int64 constant."""
        return self.constant(np.array(values, np.int64), "int_" + "_".join(str(v) for v in values))

    def scalar(self, value: int) -> ir.Value:
        """Returns a zero-dimensional int64 constant."""
        return self.constant(np.array(value, np.int64), f"scalar_{value}")

    def floats(self, value: float) -> ir.Value:
        """Returns a one-element float32 constant."""
        return self.constant(np.array([value], np.float32), f"float_{value!r}")

    def weight(self, name: str) -> ir.Value:
        """Returns a weight of the network in the graph's compute type."""
        return self.constant(np.ascontiguousarray(self._weights[name], dtype=self.numpy_compute), name)

    def matrix(self, name: str) -> ir.Value:
        """Returns a linear layer's weight, transposed to [in, out]; int8 with a scale per output in int8 graphs."""
        array = np.ascontiguousarray(self._weights[name].T, dtype=np.float32)
        if self.dtype != "int8":
            return self.constant(array.astype(self.numpy_compute), name + ".T")
        scale = np.maximum(np.abs(array).max(axis=0), 1e-8).astype(np.float32) / np.float32(127)
        quantised = self.constant(np.round(array / scale).astype(np.int8), name + ".int8")
        zero = self.constant(np.zeros(array.shape[1], np.int8), name + ".zero")
        value: ir.Value = self.op.DequantizeLinear(quantised, self.constant(scale, name + ".scale"), zero, axis=1)
        return value

    def linear(self, x: ir.Value, layer: str, *, bias: bool = True) -> ir.Value:
        """Returns x @ W.T + b."""
        y: ir.Value = self.op.MatMul(x, self.matrix(f"{layer}.weight"))
        return self.op.Add(y, self.weight(f"{layer}.bias")) if bias else y

    def gemm(self, x: ir.Value, layer: str) -> ir.Value:
        """Computes `linear` for rows [n, in] in one node."""
        value: ir.Value = self.op.Gemm(x, self.matrix(f"{layer}.weight"), self.weight(f"{layer}.bias"))
        return value

    def norm(self, x: ir.Value, layer: str) -> ir.Value:
        """Returns x after the layer norm `layer`."""
        value: ir.Value = self.op.LayerNormalization(
            x, self.weight(f"{layer}.weight"), self.weight(f"{layer}.bias"), axis=-1, epsilon=NORM_EPSILON
        )
        return value

    def silu(self, x: ir.Value) -> ir.Value:
        """Returns x · sigmoid(x)."""
        value: ir.Value = self.op.Mul(x, self.op.Sigmoid(x))
        return value

    def cast(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Returns x as another type."""
        value: ir.Value = self.op.Cast(x, to=int(dtype))
        return value

    def to_compute(self, x: ir.Value) -> ir.Value:
        """Casts float32 to the compute type; adds no node if they are the same."""
        return x if self.compute == FLOAT else self.cast(x, self.compute)

    def to_float(self, x: ir.Value) -> ir.Value:
        """Casts the compute type to float32; adds no node if they are the same."""
        return x if self.compute == FLOAT else self.cast(x, FLOAT)

    def log_seconds(self, delta_ms: ir.Value) -> ir.Value:
        """Returns log(1 + max(0, Δt) in seconds), float32, for a difference Δt in int64 milliseconds."""
        seconds = self.op.Div(self.cast(self.op.Max(delta_ms, self.ints(0)), FLOAT), self.floats(1000.0))
        value: ir.Value = self.op.Log(self.op.Add(seconds, self.floats(1.0)))
        return value

    def save(self, path: Path) -> None:
        """Checks the graph and writes it.

        Raises:
            ValueError: Outputs of the interface are missing or out of order.
        """
        import onnx

        written = [value.name for value in self.graph.outputs]
        if written != list(self._outputs):
            raise ValueError(f"the graph has the outputs {written}, but its interface has {list(self._outputs)}")
        model = ir.Model(self.graph, ir_version=IR_VERSION, producer_name="gpt4rec")
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        path.write_bytes(proto.SerializeToString())


class NetworkGraph(GraphWriter):
    """A graph under construction that is written from a network.

    Attributes:
        config: The shape of the network.
    """

    def __init__(
        self,
        name: str,
        interface: Interface,
        config: NetworkConfig,
        weights: Mapping[str, npt.NDArray[Any]],
        dtype: GraphDtype,
    ) -> None:
        super().__init__(name, interface, weights, dtype)
        self.config = config
