"""The interface of each of the artefact's ONNX graphs: its inputs and outputs with types and symbolic shapes.

`encoder_interface` and `decoder_interface` beside this module hold the interfaces themselves. They are the one
description that the writers (`export.graphs`) declare from and that the reader (`service.engine`) relies on.
`service.artifact.graphs.graph_names` says what each tensor holds. The order of the tensors is the order in the graph
files, and so part of the model version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from service.artifact.graphs import graph_names as names

Dtype = Literal["bool", "int8", "uint8", "int32", "int64", "float16", "float32"]
Compute = Literal["float16", "float32"]  # type of a graph's activations, and of its item vectors


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output of a graph.

    Attributes:
        name: Its name in the graph.
        dtype: Its element type, by numpy's name.
        shape: A number for each fixed dimension, a name for each one that may change from run to run.
    """

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """All inputs and outputs of a graph, in the order of the file."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class GraphShape:
    """What the interfaces depend on.

    Attributes:
        compute: Type of the graph's activations and of its item vectors.
        encoder: Name of the encoder's architecture.
        code_sizes: V_l, the number of different tokens at each level.
    """

    compute: Compute
    encoder: str
    code_sizes: tuple[int, ...]
    d_model: int
    d_head: int
    layers: int
    window: int
    n_slots: int
    has_time: bool
    state_dtype: Literal["float32", "float16", "int8"]
    query_buckets: int = 0
    attribute_slots: int = 0
    session_ids: bool = False

    @classmethod
    def of(cls, network: Mapping[str, Any], compute: Compute) -> GraphShape:
        """From the section "network" of a manifest."""
        later = ("query_buckets", "attribute_slots", "session_ids")  # absent from older manifests
        others = [field.name for field in fields(cls) if field.name not in ("compute", "code_sizes", *later)]
        others += [name for name in later if name in network]
        sizes = tuple(int(size) for size in network["code_sizes"])
        return cls(compute=compute, code_sizes=sizes, **{name: network[name] for name in others})


def item_table(shape: GraphShape) -> Tensor:
    """Returns the input that holds the item vectors."""
    return Tensor(names.ITEM_TABLE, shape.compute, ("rows", shape.d_model))


def context(shape: GraphShape) -> Tensor:
    """Returns the input that holds the context of the request."""
    return Tensor(names.CONTEXT, "int64", ("batch", shape.n_slots))


def hidden(shape: GraphShape) -> Tensor:
    """Returns the tensor that holds hidden states."""
    return Tensor(names.HIDDEN, "float32", ("batch", shape.d_model))
