"""The written graphs have exactly the inputs and outputs that their interface describes, in its order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.graphs.decoder import write_decoder
from export.graphs.encoder import write_encoder
from export.graphs.explainer import write_explainer
from export.graphs.graph_writer import DATA_TYPES, GraphDtype, GraphWriter, graph_shape
from export.graphs.history_encoder import WRITERS, write_history_encoder
from export.graphs.sampler import write_sampler
from model.network.gpt4rec import GPT4Rec
from service.artifact.graphs import decoder_interface, encoder_interface, graph_names
from service.artifact.graphs.graph_interface import Dtype, GraphShape, Interface, Tensor
from service.artifact.graphs.state_layout import TIME_MS, StateArray, StateLayout
from tests.support.networks import random_network, weights_of

DTYPES: tuple[GraphDtype, ...] = ("float32", "float16", "int8")
ONNX_DTYPES: Mapping[int, Dtype] = {int(code): name for name, code in DATA_TYPES.items()}

# Depths of the trie; levels too large for a table by rows, or for one of tokens; types of the state; no times.
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "one level": {"sizes": (64,)},
    "two levels": {"sizes": (7, 9)},
    "three levels": {},
    "four levels": {"sizes": (3, 4, 2, 5)},
    "last level in CSR": {"n_items": 200, "sizes": (64, 64, 128)},
    "last level without row tokens": {"n_items": 200, "sizes": (64, 64, 64, 65)},
    "float32 state": {"state_dtype": "float32"},
    "int8 state": {"state_dtype": "int8"},
    "without times": {"has_time": False},
}

Write = Callable[[GPT4Rec, Path, GraphDtype], None]
GRAPHS: Mapping[str, tuple[Write, Callable[[GraphShape], Interface]]] = {
    "encoder": (lambda m, path, dtype: write_encoder(m.config, weights_of(m), path, dtype), encoder_interface.encoder),
    "explainer": (
        lambda m, path, dtype: write_explainer(m.config, weights_of(m), path, dtype),
        encoder_interface.explainer,
    ),
    "decoder, whole catalogue": (
        lambda m, path, dtype: write_decoder(m.config, weights_of(m), path, dtype, dense=True),
        lambda shape: decoder_interface.decoder(shape, dense=True),
    ),
    "decoder, signals alone": (
        lambda m, path, dtype: write_decoder(m.config, weights_of(m), path, dtype, dense=False),
        lambda shape: decoder_interface.decoder(shape, dense=False),
    ),
    "decoder, cells": (
        lambda m, path, dtype: write_decoder(m.config, weights_of(m), path, dtype, cells=True),
        lambda shape: decoder_interface.decoder(shape, dense=False, cells=True),
    ),
    "sampler, cells": (
        lambda m, path, dtype: write_sampler(m.config, weights_of(m), path, dtype, cells=True),
        lambda shape: decoder_interface.sampler(shape, dense=False, cells=True),
    ),
    "sampler, whole catalogue": (
        lambda m, path, dtype: write_sampler(m.config, weights_of(m), path, dtype, dense=True),
        lambda shape: decoder_interface.sampler(shape, dense=True),
    ),
    "sampler, signals alone": (
        lambda m, path, dtype: write_sampler(m.config, weights_of(m), path, dtype, dense=False),
        lambda shape: decoder_interface.sampler(shape, dense=False),
    ),
}


def tensors(values: Sequence[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    """Inputs or outputs as they stand in a file."""
    return tuple(
        Tensor(
            value.name,
            ONNX_DTYPES[value.type.tensor_type.elem_type],
            tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def interface_of(path: Path) -> Interface:
    graph = onnx.load(str(path)).graph
    return Interface(tensors(graph.input), tensors(graph.output))


def dtypes_of(graph: str, network: str) -> tuple[GraphDtype, ...]:
    """All types for the graph that has the inputs of the others too; for those one, so that all pairs occur."""
    if graph == "decoder, whole catalogue":
        return DTYPES
    return (DTYPES[(list(GRAPHS).index(graph) + list(NETWORKS).index(network)) % len(DTYPES)],)


def test_every_pair_of_graph_network_and_type_is_written() -> None:
    triples = [(g, n, dtype) for g in GRAPHS for n in NETWORKS for dtype in dtypes_of(g, n)]
    for one, other, parts in ((0, 1, (GRAPHS, NETWORKS)), (0, 2, (GRAPHS, DTYPES)), (1, 2, (NETWORKS, DTYPES))):
        assert {(triple[one], triple[other]) for triple in triples} == {*itertools.product(*parts)}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_has_the_inputs_and_outputs_of_its_interface(graph: str, network: str, tmp_path: Path) -> None:
    model = random_network(**NETWORKS[network])
    write, interface = GRAPHS[graph]
    for dtype in dtypes_of(graph, network):
        write(model, tmp_path / "graph.onnx", dtype)
        assert interface_of(tmp_path / "graph.onnx") == interface(graph_shape(model.config, dtype))


@pytest.mark.parametrize("has_time", [True, False])
@pytest.mark.parametrize("encoder", WRITERS)
def test_a_history_encoder_has_the_inputs_and_outputs_of_its_interface(
    encoder: str, has_time: bool, tmp_path: Path
) -> None:
    model = random_network(encoder=encoder, has_time=has_time)
    for dtype in DTYPES:
        write_history_encoder(model.config, weights_of(model), tmp_path / "graph.onnx", dtype)
        wanted = encoder_interface.history_encoder(graph_shape(model.config, dtype))
        assert interface_of(tmp_path / "graph.onnx") == wanted


def test_every_name_belongs_to_a_tensor_of_some_graph() -> None:
    """A name that no graph has would describe nothing."""
    used: set[str] = set()
    for network in NETWORKS.values():
        shape = graph_shape(random_network(**network).config, "float32")
        used |= names_of(*(interface(shape) for _, interface in GRAPHS.values()))
    models = [random_network(encoder=encoder) for encoder in WRITERS]
    models += [random_network(encoder="encoder_decoder", attribute_slots=2, n_attribute_rows=3)]
    for model in models:
        shape = graph_shape(model.config, "float32")
        used |= names_of(encoder_interface.history_encoder(shape), encoder_interface.history_explainer(shape))
    state = StateLayout(hidden=8, window=2, arrays=(StateArray(TIME_MS, "int64", (2,), rows=0),))
    for encoder in ("memory_bank", "hierarchy"):
        shape = replace(shape, encoder=encoder, session_ids=encoder == "hierarchy")
        used |= names_of(encoder_interface.step_explainer(shape, state))
    described = {value for name, value in vars(graph_names).items() if name.isupper() and isinstance(value, str)}
    assert used == described


def names_of(*interfaces: Interface) -> set[str]:
    """Names of all inputs and outputs, without their levels."""
    found = {tensor.name for one in interfaces for tensor in (*one.inputs, *one.outputs)}
    return {name.rstrip("0123456789").removesuffix("_") for name in found}


def test_the_shape_of_a_graph_is_the_same_from_the_manifest_as_from_the_network() -> None:
    config = random_network().config
    shape = GraphShape.of(config.to_json(), "float16")
    assert shape == graph_shape(config, "float16")
    assert (shape.code_sizes, shape.d_model, shape.compute) == (config.code_sizes, config.d_model, "float16")


def test_a_graph_cannot_have_an_output_that_its_interface_lacks() -> None:
    writer = GraphWriter("empty", Interface((), ()), {}, "float32")
    with pytest.raises(KeyError, match="surprise"):
        writer.output(writer.floats(1.0), "surprise")


def test_a_graph_that_lacks_an_output_of_its_interface_is_not_saved(tmp_path: Path) -> None:
    writer = GraphWriter("empty", Interface((), (Tensor("promised", "float32", (1,)),)), {}, "float32")
    with pytest.raises(ValueError, match="promised"):
        writer.save(tmp_path / "graph.onnx")
    assert not (tmp_path / "graph.onnx").exists()


def test_every_type_of_an_interface_has_an_onnx_type() -> None:
    assert {name: np.dtype(name).itemsize for name in DATA_TYPES} == {
        name: code.itemsize for name, code in DATA_TYPES.items()
    }
    assert ONNX_DTYPES[TensorProto.FLOAT16] == "float16"
