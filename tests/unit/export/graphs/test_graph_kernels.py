"""Every node of the graphs has a kernel in onnxruntime's CUDA provider, with the types it is used with."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, defs, helper, shape_inference

from export.graphs.graph_writer import GraphDtype
from model.network.config import StateDtype
from service.common.errors import ModelError, StartupError
from service.engine import placement
from service.engine.onnx_session import GraphSession
from service.engine.placement import Placement, choose_device
from tests.support.cuda_kernels import CUDA_KERNELS, Kernel
from tests.support.networks import random_network, write_graphs

CPU = Placement("cpu", 1, pad=False)
GPU_DTYPES: tuple[GraphDtype, ...] = ("float32", "float16")
STATE_DTYPES: tuple[StateDtype, ...] = ("float32", "float16", "int8")

# Names of types as onnxruntime spells them.
TYPE_NAMES = {
    TensorProto.FLOAT: "float",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.BOOL: "bool",
    TensorProto.DOUBLE: "double",
}


def value_types(model: onnx.ModelProto) -> dict[str, str]:
    """Element type of every value of a graph."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: TYPE_NAMES[value.type.tensor_type.elem_type] for value in values}
    return types | {tensor.name: TYPE_NAMES[tensor.data_type] for tensor in graph.initializer}


def missing_kernels(model: onnx.ModelProto) -> list[str]:
    """Nodes that no row of the table covers, with the reason."""
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    types = value_types(model)
    problems = []
    for node in model.graph.node:
        since = defs.get_schema(node.op_type, opset, node.domain).since_version
        rows = [row for row in CUDA_KERNELS.get(node.op_type, []) if row.since <= since <= row.until]
        used = used_types(node, opset, types)
        if not any(covers(row, used) for row in rows):
            problems.append(f"{node.op_type}-{since} with {used}")
    return sorted(set(problems))


def used_types(node: onnx.NodeProto, opset: int, types: dict[str, str]) -> dict[str, str]:
    """Type that the node binds each type parameter of the operator's schema to."""
    schema = defs.get_schema(node.op_type, opset, node.domain)
    used: dict[str, str] = {}
    for formal, actual in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for position, name in enumerate(actual):
            parameter = formal[min(position, len(formal) - 1)]
            if name:
                used[parameter.type_str] = types[name]
    return used


def covers(row: Kernel, used: dict[str, str]) -> bool:
    return all(kind in row.types[parameter].split() for parameter, kind in used.items() if parameter in row.types)


@pytest.fixture(scope="module", params=[(g, s) for g in GPU_DTYPES for s in STATE_DTYPES], ids=str)
def graphs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    dtype, state_dtype = request.param
    folder = tmp_path_factory.mktemp("graphs")
    write_graphs(random_network(state_dtype=state_dtype), folder, dtype)
    decoders = [f"{kind}{graph}" for kind in ("", "beam_", "cell_") for graph in ("decoder", "sampler")]
    names = ("encoder", "explainer", *decoders)
    return {name: onnx.load(folder / f"{name}.onnx") for name in names}


def test_every_node_has_a_cuda_kernel_for_its_types(graphs: dict[str, onnx.ModelProto]) -> None:
    for name, model in graphs.items():
        assert missing_kernels(model) == [], name


def test_graphs_use_one_opset_of_at_most_23_and_no_control_flow(graphs: dict[str, onnx.ModelProto]) -> None:
    for model in graphs.values():
        assert [(entry.domain, entry.version <= 23) for entry in model.opset_import] == [("", True)]
        assert not {node.op_type for node in model.graph.node} & {"Loop", "If", "Scan"}


def test_no_value_is_double(graphs: dict[str, onnx.ModelProto]) -> None:
    for model in graphs.values():
        assert "double" not in value_types(model).values()


@pytest.mark.parametrize(
    ("op", "dtype", "trap"),
    [("Where", TensorProto.BOOL, True), ("CumSum", TensorProto.INT64, False), ("Where", TensorProto.INT64, False)],
)
def test_the_walk_finds_the_known_traps(op: str, dtype: int, trap: bool) -> None:
    """`Where` on bool has no CUDA kernel; a check that did not find this would prove nothing."""
    kind = helper.make_tensor_value_info
    if op == "Where":
        inputs = [kind("c", TensorProto.BOOL, [2]), kind("a", dtype, [2]), kind("b", dtype, [2])]
    else:
        inputs = [kind("a", dtype, [2]), kind("b", TensorProto.INT64, [])]
    node = helper.make_node(op, [value.name for value in inputs], ["y"])
    graph = helper.make_graph([node], "one", inputs, [kind("y", dtype, [2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert bool(missing_kernels(model)) is trap


def test_an_operator_outside_the_table_is_found() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Unique", ["x"], ["y"])], "one", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert missing_kernels(model)


def test_a_missing_device_is_named_with_the_way_to_mend_it() -> None:
    assert choose_device("cpu") == "cpu"
    with pytest.raises(StartupError, match=r"CUDAExecutionProvider.*gpt4rec\[gpu\]"):
        choose_device("cuda")


LOADER_MESSAGES = [
    ("libcudnn.so.9: cannot open shared object file: No such file or directory", "libcudnn.so.9"),
    (
        "Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.12: cannot open shared "
        "object file: No such file or directory",
        "libcublasLt.so.12",
    ),
    (
        'Error loading "C:\\x\\onnxruntime_providers_cuda.dll" which depends on "cudnn64_9.dll" which is missing.',
        "cudnn64_9.dll",
    ),
    ("undefined symbol: Provider_GetHost", None),
]


@pytest.mark.parametrize(("message", "library"), LOADER_MESSAGES, ids=lambda value: str(value)[:20])
def test_a_missing_library_is_found_in_the_loaders_message(message: str, library: str | None) -> None:
    assert placement.missing_library(message) == library
    assert (placement.explain(message) == message) is (library is None)


def with_cuda(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Simulates an onnxruntime with CUDA, whose provider library lies in `folder`/capi."""
    (folder / "capi").mkdir()
    (folder / "capi" / "libonnxruntime_providers_cuda.so").touch()
    monkeypatch.setattr(ort, "__file__", str(folder / "__init__.py"))
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)


def test_start_up_names_the_library_that_cuda_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(path: str, _: int) -> None:
        raise OSError("libcudnn.so.9: cannot open shared object file: No such file or directory")

    with_cuda(monkeypatch, tmp_path)
    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(StartupError, match=r"libcudnn\.so\.9 is missing"):
        choose_device("cuda")
    assert choose_device("auto") == "cpu"


def test_start_up_says_why_a_gpu_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_cuda(monkeypatch, tmp_path)
    with pytest.raises(StartupError, match="device 'cuda' cannot be used"):
        choose_device("cuda")


def test_cuda_graphs_without_cuda_are_refused() -> None:
    with pytest.raises(StartupError, match="need device cuda"):
        Placement.choose("cpu", capture=True)


def test_a_graph_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    broken = tmp_path / "encoder.onnx"
    broken.write_bytes(b"not a graph")
    with pytest.raises(StartupError, match=r"encoder\.onnx cannot be loaded"):
        GraphSession(broken, CPU)


def test_a_run_with_a_missing_input_is_a_model_error(tmp_path: Path) -> None:
    write_graphs(random_network(), tmp_path)
    with pytest.raises(ModelError, match="the graph did not run"):
        GraphSession(tmp_path / "encoder.onnx", CPU).run({})


def test_an_input_of_the_wrong_type_is_a_model_error(tmp_path: Path) -> None:
    write_graphs(random_network(), tmp_path)
    session = GraphSession(tmp_path / "encoder.onnx", CPU)
    feeds = {name: np.zeros((1, 1, 1, 1, 1), np.float64) for name in session.inputs}
    with pytest.raises(ModelError, match="the graph did not run"):
        session.run(feeds)
