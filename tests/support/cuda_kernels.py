"""Rows of onnxruntime's CUDA kernel table for the operators of our graphs.

Source: microsoft/onnxruntime docs/OperatorKernels.md @001d12d, CUDAExecutionProvider. A row says since which opset (to
which) a kernel exists and the types it takes, by the type parameter of the operator's schema.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """One registered kernel: opsets `since` … `until`, and type names by type parameter."""

    since: int
    until: float
    types: dict[str, str]


ALWAYS = math.inf

CUDA_KERNELS: dict[str, list[Kernel]] = {
    "Abs": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
    ],
    "Add": [
        Kernel(14, ALWAYS, {"T": "bfloat16 double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
        Kernel(13, 13, {"T": "bfloat16 double float float16 int32 int64 uint32 uint64"}),
    ],
    "And": [
        Kernel(7, ALWAYS, {"T": "bool", "T1": "bool"}),
    ],
    "Cast": [
        Kernel(
            23,
            ALWAYS,
            {
                "T1": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "T2": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
            },
        ),
        Kernel(
            21,
            22,
            {
                "T1": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "T2": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
            },
        ),
        Kernel(
            19,
            20,
            {
                "T1": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "T2": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
            },
        ),
    ],
    "Clip": [
        Kernel(13, ALWAYS, {"T": "double float float16 int64 int8 uint64 uint8"}),
    ],
    "Concat": [
        Kernel(
            13, ALWAYS, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}
        ),
    ],
    "Cos": [
        Kernel(7, ALWAYS, {"T": "double float float16"}),
    ],
    "CumSum": [
        Kernel(14, ALWAYS, {"T": "double float float16 int32 int64 uint32 uint64", "T2": "int32 int64"}),
        Kernel(11, 13, {"T": "double float int32 int64 uint32 uint64", "T2": "int32 int64"}),
    ],
    "DequantizeLinear": [
        Kernel(21, ALWAYS, {"T1": "float8e4m3fn float8e5m2 int4 int8 uint4 uint8", "T2": "float float16"}),
        Kernel(19, 20, {"T1": "float8e4m3fn float8e5m2 int8 uint8", "T2": "float float16"}),
        Kernel(13, 18, {"T": "int8 uint8"}),
    ],
    "Div": [
        Kernel(14, ALWAYS, {"T": "bfloat16 double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
        Kernel(13, 13, {"T": "bfloat16 double float float16 int32 int64 uint32 uint64"}),
    ],
    "Equal": [
        Kernel(13, ALWAYS, {"T": "bool double float float16 int32 int64 uint32 uint64", "T1": "bool"}),
    ],
    "Exp": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "Expand": [
        Kernel(
            13, ALWAYS, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}
        ),
    ],
    "GRU": [
        Kernel(14, ALWAYS, {"T": "double float float16", "T1": "int32"}),
    ],
    "Gather": [
        Kernel(
            13,
            ALWAYS,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "Tind": "int32 int64",
            },
        ),
    ],
    "GatherElements": [
        Kernel(
            13,
            ALWAYS,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "Tind": "int32 int64",
            },
        ),
    ],
    "Gelu": [
        Kernel(20, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "Gemm": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "Greater": [
        Kernel(13, ALWAYS, {"T": "double float float16 int32 int64 uint32 uint64", "T1": "bool"}),
    ],
    "GreaterOrEqual": [
        Kernel(16, ALWAYS, {"T": "double float float16 int32 int64 uint32 uint64", "T1": "bool"}),
        Kernel(12, 15, {"T": "double float float16 int32 int64 uint32 uint64", "T1": "bool"}),
    ],
    "LSTM": [
        Kernel(14, ALWAYS, {"T": "double float float16", "T1": "int32"}),
    ],
    "LayerNormalization": [
        Kernel(17, ALWAYS, {"T": "bfloat16 double float float16", "U": "float"}),
        Kernel(
            1, 16, {"T": "bfloat16 double float float16", "U": "double float", "V": "bfloat16 double float float16"}
        ),
    ],
    "Less": [
        Kernel(13, ALWAYS, {"T": "double float float16 int32 int64 uint32 uint64", "T1": "bool"}),
    ],
    "LessOrEqual": [
        Kernel(16, ALWAYS, {"T": "double float float16 int32 int64 uint32 uint64", "T1": "bool"}),
        Kernel(12, 15, {"T": "double float float16 int32 int64 uint32 uint64", "T1": "bool"}),
    ],
    "Log": [
        Kernel(13, ALWAYS, {"T": "double float float16"}),
    ],
    "LogSoftmax": [
        Kernel(13, ALWAYS, {"T": "double float float16"}),
    ],
    "MatMul": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "Max": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16 int32 int64 uint32 uint64"}),
    ],
    "Min": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16 int32 int64 uint32 uint64"}),
    ],
    "Mod": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16 int32 int64 uint32 uint64"}),
    ],
    "Mul": [
        Kernel(14, ALWAYS, {"T": "bfloat16 double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
        Kernel(13, 13, {"T": "bfloat16 double float float16 int32 int64 uint32 uint64"}),
    ],
    "Neg": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16 int16 int32 int64 int8"}),
    ],
    "Or": [
        Kernel(7, ALWAYS, {"T": "bool", "T1": "bool"}),
    ],
    "Range": [
        Kernel(11, ALWAYS, {"T": "double float int16 int32 int64"}),
    ],
    "ReduceMax": [
        Kernel(18, ALWAYS, {"T": "double float float16 int32 int64"}),
        Kernel(1, 17, {"T": "double float float16 int32 int64"}),
    ],
    "ReduceMean": [
        Kernel(18, ALWAYS, {"T": "double float float16 int32"}),
    ],
    "ReduceMin": [
        Kernel(18, ALWAYS, {"T": "double float float16 int32 int64 int8 uint8"}),
        Kernel(1, 17, {"T": "double float float16 int32 int64 int8 uint8"}),
    ],
    "ReduceSum": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16 int32 int64"}),
    ],
    "Relu": [
        Kernel(14, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "Reshape": [
        Kernel(
            23,
            ALWAYS,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "shape": "int64",
            },
        ),
        Kernel(
            21,
            22,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "shape": "int64",
            },
        ),
        Kernel(
            19,
            20,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "shape": "int64",
            },
        ),
    ],
    "Round": [
        Kernel(11, ALWAYS, {"T": "double float float16"}),
    ],
    "ScatterElements": [
        Kernel(
            18,
            ALWAYS,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "Tind": "int32 int64",
            },
        ),
        Kernel(
            16,
            17,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "Tind": "int32 int64",
            },
        ),
        Kernel(
            13,
            15,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "Tind": "int32 int64",
            },
        ),
    ],
    "Shape": [
        Kernel(
            23,
            ALWAYS,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "T1": "int64",
            },
        ),
        Kernel(
            21,
            22,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "T1": "int64",
            },
        ),
        Kernel(
            19,
            20,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "T1": "int64",
            },
        ),
    ],
    "Sigmoid": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "Sin": [
        Kernel(7, ALWAYS, {"T": "double float float16"}),
    ],
    "Slice": [
        Kernel(
            13,
            ALWAYS,
            {
                "T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8",
                "Tind": "int32 int64",
            },
        ),
    ],
    "Softmax": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "Softplus": [
        Kernel(1, ALWAYS, {"T": "double float float16"}),
    ],
    "Split": [
        Kernel(
            18,
            ALWAYS,
            {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"},
        ),
    ],
    "Sqrt": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "Squeeze": [
        Kernel(
            23, ALWAYS, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}
        ),
        Kernel(21, 22, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
        Kernel(13, 20, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
    ],
    "Sub": [
        Kernel(14, ALWAYS, {"T": "bfloat16 double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
        Kernel(13, 13, {"T": "bfloat16 double float float16 int32 int64 uint32 uint64"}),
    ],
    "Tanh": [
        Kernel(13, ALWAYS, {"T": "bfloat16 double float float16"}),
    ],
    "TopK": [
        Kernel(11, ALWAYS, {"I": "int64", "T": "double float float16 int32 int64"}),
    ],
    "Transpose": [
        Kernel(
            23, ALWAYS, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}
        ),
        Kernel(21, 22, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
        Kernel(13, 20, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
    ],
    "Unsqueeze": [
        Kernel(
            23, ALWAYS, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}
        ),
        Kernel(21, 22, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
        Kernel(13, 20, {"T": "bfloat16 bool double float float16 int16 int32 int64 int8 uint16 uint32 uint64 uint8"}),
    ],
    "Where": [
        Kernel(16, ALWAYS, {"B": "bool", "T": "bfloat16 double float float16 int32 int64 uint8"}),
        Kernel(9, 15, {"B": "bool", "T": "double float float16 int32 int64 uint8"}),
    ],
}
