"""`encoder.onnx` of any encoder that has a `step`: state + new events → state and h. And its `explainer.onnx`.

The graph is traced from the torch code that trains (`model.network.encoders.base.Encoder.step`), through the exporter
of torch. What is written by hand elsewhere is given to it here: the names, types and symbolic shapes of
`service.artifact.graphs.encoder_interface.step_encoder`, the opset and the precision. Every precision computes in
float32, so that a state does not lose what it adds up; float16 and int8 graphs keep the weights of linear layers as
float16 or int8, with one scale for each output.

One trace, which takes seconds, makes both graphs. It is that of the explainer: a step over amounts of events, and what
the last of them read from memory. The encoder is what is left of it where there is as much of each event as there is.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from export.graphs.graph_writer import DATA_TYPES, IR_VERSION, OPSET, GraphDtype, graph_shape
from model.network.encoders.base import Events
from model.network.encoders.registry import state_layout
from model.network.gpt4rec import GPT4Rec
from service.artifact.graphs import encoder_interface
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_interface import Interface
from service.artifact.graphs.graph_interface import Tensor as Declared

# Sizes of the tracing run. None is a size of any array, so that none is taken for a constant.
_ROWS, _EVENTS = 3, 5
_LEAST_QUANTISED = 2  # dimensions of a weight


class TracedStep(nn.Module):
    """One run of the explainer, in the order of its interface."""

    def __init__(self, model: GPT4Rec) -> None:
        super().__init__()
        self.model = model
        self.arrays = [array.name for array in state_layout(model.config).arrays]
        self.read = [tensor.name for tensor in _explainer(model, "float32").outputs[len(self.arrays) + 1 :]]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the arrays of the next state, h [B, d], and what was read from memory."""
        past, (n_valid, item, type_, time_ms, previous_ms, *named, n_new, table, amount) = (
            inputs[: len(self.arrays)], inputs[len(self.arrays) :]
        )  # fmt: skip
        items, features = self.model.embed(table, item, type_, time_ms, previous_ms)
        session = named[0] if named else None
        events = Events(
            type_, time_ms, items, features, n_new, session=session, previous_ms=previous_ms, n_valid=n_valid
        )  # fmt: skip
        state = dict(zip(self.arrays, past, strict=True))
        x = (items + features) * amount[..., None]  # `step` reads nothing else that is embedded
        h, after = self.model.encoder.step(x, events, state)
        last = h.gather(1, (n_new - 1)[:, None, None].expand(-1, 1, h.shape[2]))[:, 0]
        read = self.model.encoder.memory_read(x, events, state) if self.read else {}
        shown = (read[name.removeprefix("read_")] for name in self.read)
        return (*(after[name] for name in self.arrays), last, *shown)


def write_step_graphs(model: GPT4Rec, encoder: Path, explainer: Path, dtype: GraphDtype) -> None:
    """Writes both graphs, whose interfaces are in `service.artifact.graphs.encoder_interface`."""
    traced = trace_step(model)
    encoder.write_bytes(step_graph(model, traced, dtype).SerializeToString())
    explainer.write_bytes(step_graph(model, traced, dtype, explains=True).SerializeToString())


def step_graph(
    model: GPT4Rec, traced: onnx.ModelProto, dtype: GraphDtype, *, explains: bool = False
) -> onnx.ModelProto:
    """Returns a graph with the interface and the weights of a precision.

    Args:
        model: The network.
        traced: What `trace_step` returned for it.
        dtype: Precision of the graph.
        explains: Whether it is the explainer's; else it is the encoder's.

    Raises:
        ValueError: The graph has other inputs or outputs than its interface.
    """
    graph = ir.from_proto(traced).graph
    made = ir.Model(graph, ir_version=IR_VERSION, producer_name="gpt4rec")
    interface = _explainer(model, dtype)
    if not explains:
        interface = encoder_interface.step_encoder(graph_shape(model.config, dtype), state_layout(model.config))
        _without_amounts(graph)
        while len(graph.outputs) > len(interface.outputs):
            graph.outputs.pop()
        RemoveUnusedNodesPass()(made)
    if dtype == "float16":
        _cast_table(graph)
    _declare(graph, interface)
    if dtype != "float32":
        _store_weights(graph, dtype)
    proto = ir.to_proto(made)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def trace_step(model: GPT4Rec) -> onnx.ModelProto:
    """Returns the explainer's graph of an encoder's `step` in float32, as torch exports it.

    Raises:
        RuntimeError: torch exports another opset, or functions of its own.
    """
    interface = _explainer(model, "float32")
    sizes = {"batch": _ROWS, "events": _EVENTS, "rows": len(model.item.weight)}
    dims = {name: torch.export.Dim(name) for name in sizes}
    inputs, shapes = [], []
    for tensor in interface.inputs:
        shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
        inputs.append(torch.full(shape, int(tensor.name == names.N_NEW), dtype=getattr(torch, tensor.dtype)))
        shapes.append({axis: dims[size] for axis, size in enumerate(tensor.shape) if isinstance(size, str)})
    names_of = ([tensor.name for tensor in tensors] for tensors in (interface.inputs, interface.outputs))
    return traced_module(TracedStep(model.eval()), inputs, shapes, *names_of)


def traced_module(
    module: nn.Module,
    inputs: Sequence[Tensor],
    shapes: Sequence[Mapping[int, object]],
    input_names: Sequence[str],
    output_names: Sequence[str] = (),
) -> onnx.ModelProto:
    """Returns the graph of a module in float32, as torch exports it.

    Args:
        module: Its `forward` takes `*inputs`.
        inputs: Those of the tracing run.
        shapes: The symbolic sizes of each input by axis, of `torch.export.Dim`.
        input_names: Names of the inputs in the graph.
        output_names: Names of the outputs; torch names them where there are none.

    Raises:
        RuntimeError: torch exports another opset, or functions of its own.
    """
    with _quiet(), torch.no_grad():
        program = torch.export.export(module, tuple(inputs), dynamic_shapes=(tuple(dict(one) for one in shapes),))
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names) or None,
            verbose=False,
        )
    assert exported is not None  # noqa: S101 - it writes no file
    found = exported.model
    if found.graph.opset_imports.get("") != OPSET or found.functions:
        raise RuntimeError(f"torch exported a graph of opset {dict(found.graph.opset_imports)}, not of {OPSET}")
    return ir.to_proto(found)


def _explainer(model: GPT4Rec, dtype: GraphDtype) -> Interface:
    return encoder_interface.step_explainer(graph_shape(model.config, dtype), state_layout(model.config))


def _without_amounts(graph: ir.Graph) -> None:
    """Takes the input AMOUNT away, and the product that it is a factor of."""
    amount = graph.inputs.pop()
    item = next(value for value in graph.inputs if value.name == names.ITEM)
    for use in tuple(amount.uses()):
        if use.node.op_type == "Shape":  # sizes are read from any input that has them
            use.node.replace_input_with(use.idx, item)
    [use] = amount.uses()
    while use.node.op_type != "Mul":  # it gets an axis first
        [use] = use.node.outputs[0].uses()
    whole = use.node.inputs[1 - use.idx]
    assert whole is not None  # noqa: S101 - a product has two factors
    for one in tuple(use.node.outputs[0].uses()):
        one.node.replace_input_with(one.idx, whole)


def _cast_table(graph: ir.Graph) -> None:
    """Lets the graph read item vectors in float16."""
    table = next(value for value in graph.inputs if value.name == names.ITEM_TABLE)
    uses = table.uses()
    cast = ir.node("Cast", [table], {"to": int(ir.DataType.FLOAT)}, outputs=[_float(f"{names.ITEM_TABLE}.cast")])
    table.dtype = ir.DataType.FLOAT16
    graph.insert_before(graph[0], cast)
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])


def _declare(graph: ir.Graph, interface: Interface) -> None:
    """Gives inputs and outputs the shapes of the interface.

    Raises:
        ValueError: The graph has other inputs or outputs.
    """
    for values, tensors in ((graph.inputs, interface.inputs), (graph.outputs, interface.outputs)):
        found = [(value.name, value.dtype) for value in values]
        if found != [(tensor.name, DATA_TYPES[tensor.dtype]) for tensor in tensors]:
            raise ValueError(f"the graph has {found}, but its interface has {_described(tensors)}")
        for value, tensor in zip(values, tensors, strict=True):
            value.shape = ir.Shape(tensor.shape)


def _described(tensors: tuple[Declared, ...]) -> list[str]:
    return [f"{tensor.name}: {tensor.dtype}" for tensor in tensors]


def _store_weights(graph: ir.Graph, dtype: GraphDtype) -> None:
    """Stores the weights of products as float16, or as int8 with one scale for each output.

    The weights [in, out] of a product follow from the columns, those [out, in] of a Gemm with a transposed weight from
    the rows. They are computed with as float32.
    """
    for name, value in list(graph.initializers.items()):
        uses = value.uses()
        products = [use.node for use in uses if use.node.op_type in ("MatMul", "Gemm") and use.idx == 1]
        array = value.const_value
        if array is None or len(products) != len(uses) or not products or value.dtype != ir.DataType.FLOAT:
            continue
        weights = array.numpy()
        if weights.ndim != _LEAST_QUANTISED:
            continue
        node = products[0]
        turned = node.attributes.get("transB")
        transposed = turned is not None and turned.as_int() == 1
        graph.insert_before(
            node,
            stored := _half(graph, name, weights)
            if dtype == "float16"
            else _int8(graph, name, weights, axis=0 if transposed else 1),
        )
        for use in uses:
            use.node.replace_input_with(use.idx, stored.outputs[0])
        del graph.initializers[name]


def _half(graph: ir.Graph, name: str, weights: np.ndarray) -> ir.Node:
    half = _initializer(graph, weights.astype(np.float16), f"{name}.float16")
    return ir.node("Cast", [half], {"to": int(ir.DataType.FLOAT)}, outputs=[_float(f"{name}.cast")])


def _int8(graph: ir.Graph, name: str, weights: np.ndarray, axis: int) -> ir.Node:
    scale = np.maximum(np.abs(weights).max(axis=1 - axis), 1e-8).astype(np.float32) / np.float32(127)
    whole = np.round(weights / np.expand_dims(scale, 1 - axis)).astype(np.int8)
    parts = [(whole, "int8"), (scale, "scale"), (np.zeros(len(scale), np.int8), "zero")]
    inputs = [_initializer(graph, array, f"{name}.{part}") for array, part in parts]
    return ir.node("DequantizeLinear", inputs, {"axis": axis}, outputs=[_float(f"{name}.dequantised")])


def _initializer(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _float(name: str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what torch says about its own parts out of the output: packages it misses, interfaces it will change."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        log.setLevel(level)
