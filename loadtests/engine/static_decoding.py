"""One constrained step two ways: the published method of STATIC, and this decoder's, as ONNX graphs on equal terms.

STATIC (youtube/static-constraint-decoding) keeps the trie as a sparse transition matrix. The first two tokens are
looked up in dense tables: a [V, V] mask of what may follow a token, and the states it leads to. After them a state's
transitions are a run of (token, next state) pairs, read up to the level's largest branching and masked beyond the
state's own. Written anew from its description; V is the size of the vocabulary.

Both steps take log-probabilities [W, V] of W beams and give candidates [W, C]: their log-probabilities (NEVER where
there is none), tokens and next states. Filters and exclusions, which only this decoder has, are left out of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto, helper

from export.graphs.decoder import closed_by_byte
from service.artifact.array_types import Array, IntArray
from service.artifact.graphs.level_tables import levels_by_rows, levels_with_row_tokens
from service.artifact.trie import Trie

OPSET = 20
IR_VERSION = 10
NEVER = -1e30
DENSE_LEVELS = 2


@dataclass(frozen=True, slots=True, eq=False)
class StaticIndex:
    """The trie as a sparse transition matrix with dense tables for the first two tokens.

    States are 1 + token after the first token, then the nodes of the deeper levels; 0 is the end.

    Attributes:
        pairs: [transitions + V, 2] (token, next state) in state order.
        start: [states + 1] first pair of each state.
        dense_ok: [V, V] whether the second token may follow the first.
        dense_state: [V, V] state after the first and second token.
        branching: [levels] most transitions of a level's state.
    """

    vocabulary: int
    pairs: IntArray
    start: IntArray
    dense_ok: npt.NDArray[np.bool_]
    dense_state: IntArray
    branching: tuple[int, ...]
    base: tuple[int, ...]

    @classmethod
    def of(cls, trie: Trie, vocabulary: int) -> StaticIndex:
        """From a trie of at least three levels."""
        first = trie.token[0] + 1
        base = [0, 0, vocabulary + 1]
        for level in range(2, trie.levels):
            base.append(base[-1] + trie.n_nodes[level - 1])
        counts = np.zeros(base[-1] + 1, np.int64)
        pairs = []
        for level in range(1, trie.levels):
            state = first if level == 1 else base[level] + np.arange(trie.n_nodes[level - 1])
            counts[state] = np.diff(trie.first_child[level])
            last = level == trie.levels - 1
            following = np.zeros_like(trie.token[level]) if last else base[level + 1] + np.arange(trie.n_nodes[level])
            pairs.append(np.stack([trie.token[level], following], axis=1))
        filler = np.tile(np.array([[vocabulary - 1, 0]]), (vocabulary, 1))
        dense_ok = np.zeros((vocabulary, vocabulary), np.bool_)
        dense_state = np.zeros((vocabulary, vocabulary), np.int64)
        at = (trie.token[0][trie.parent[1]], trie.token[1])
        dense_ok[at], dense_state[at] = True, base[2] + np.arange(trie.n_nodes[1])
        return cls(
            vocabulary, np.concatenate([*pairs, filler]), np.concatenate([[0], np.cumsum(counts)]),
            dense_ok, dense_state, trie.branching, tuple(base),
        )  # fmt: skip

    def state(self, trie: Trie, level: int, node: IntArray) -> IntArray:
        """The state that stands for a node of level 1 … K − 1."""
        return trie.token[0][node] + 1 if level == 1 else self.base[level] + node


class Step:
    """A graph of one step with its tables resident, run on one thread."""

    def __init__(self, nodes: list[Any], tables: dict[str, Array], inputs: dict[str, list[Any]]) -> None:
        types = {"log_prob": TensorProto.FLOAT, "at": TensorProto.INT64, "before": TensorProto.FLOAT}
        given = [helper.make_tensor_value_info(name, types[name], shape) for name, shape in inputs.items()]
        kinds = {
            np.dtype(np.int64): TensorProto.INT64,
            np.dtype(np.int32): TensorProto.INT32,
            np.dtype(np.int8): TensorProto.INT8,
            np.dtype(np.uint8): TensorProto.UINT8,
            np.dtype(np.bool_): TensorProto.BOOL,
        }
        small = tables.get("tokens", np.zeros(0)).dtype == np.int32
        given += [
            helper.make_tensor_value_info(n, kinds.get(a.dtype, TensorProto.FLOAT), a.shape) for n, a in tables.items()
        ]
        outputs = [
            helper.make_tensor_value_info("candidate", TensorProto.FLOAT, ["w", "c"]),
            helper.make_tensor_value_info("token", TensorProto.INT32 if small else TensorProto.INT64, ["w", "c"]),
            helper.make_tensor_value_info("next", TensorProto.INT64, ["w", "c"]),
        ]
        graph = helper.make_graph(nodes, "step", given, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        # Values share the arrays' memory.
        self._arrays = {name: np.asarray(array, order="C") for name, array in tables.items()}
        self._tables = {n: ort.OrtValue.ortvalue_from_numpy(a, "cpu", 0) for n, a in self._arrays.items()}

    def __call__(self, log_prob: Array, at: IntArray) -> tuple[Array, Array, Array]:
        """`log_prob` [W, V] float32 and the states [W] of the beams → candidates, tokens and next states [W, C]."""
        feeds = {
            name: ort.OrtValue.ortvalue_from_numpy(a, "cpu", 0) for name, a in (("log_prob", log_prob), ("at", at))
        }
        out = self._session.run_with_ort_values(["candidate", "token", "next"], {**self._tables, **feeds})
        candidate, token, following = (value.numpy() for value in out)
        return candidate, token, following


_IN: dict[str, list[Any]] = {"log_prob": ["w", "v"], "at": ["w"]}


def dense_step(index: StaticIndex) -> Step:
    """STATIC's second token: the mask row of each beam's first token. Every token of the vocabulary is a candidate."""
    n = helper.make_node
    nodes = [
        n("Sub", ["at", "one"], ["first"]),
        n("Gather", ["dense_ok", "first"], ["ok"], axis=0),
        n("Where", ["ok", "log_prob", "never"], ["candidate"]),
        n("Gather", ["dense_state", "first"], ["next"], axis=0),
        n("Shape", ["log_prob"], ["shape"]),
        n("Expand", ["tokens", "shape"], ["token"]),
    ]
    tables: dict[str, Array] = {
        "one": np.array([1], np.int64), "never": np.array([NEVER], np.float32), "dense_ok": index.dense_ok,
        "dense_state": index.dense_state, "tokens": np.arange(index.vocabulary, dtype=np.int64)[None],
    }  # fmt: skip
    return Step(nodes, tables, _IN)


def sparse_step(index: StaticIndex, level: int) -> Step:
    """STATIC's later tokens, from states of level 2 and deeper: one read of pairs, as many as the level branches."""
    n = helper.make_node
    nodes = [
        n("Gather", ["start", "at"], ["from"], axis=0),
        n("Add", ["at", "one"], ["after"]),
        n("Gather", ["start", "after"], ["to"], axis=0),
        n("Sub", ["to", "from"], ["length"]),
        n("Unsqueeze", ["from", "one"], ["column"]),
        n("Unsqueeze", ["length", "one"], ["lengths"]),
        n("Add", ["column", "offsets"], ["place"]),
        n("Min", ["place", "last"], ["safe"]),
        n("Gather", ["pairs", "safe"], ["both"], axis=0),
        n("Gather", ["both", "zero"], ["token"], axis=2),
        n("Gather", ["both", "second"], ["next"], axis=2),
        n("Less", ["offsets", "lengths"], ["ok"]),
        n("GatherElements", ["log_prob", "token"], ["picked"], axis=1),
        n("Where", ["ok", "picked", "never"], ["candidate"]),
    ]
    tables: dict[str, Array] = {
        "one": np.array([1], np.int64), "zero": np.array(0), "second": np.array(1),
        "never": np.array([NEVER], np.float32), "start": index.start, "pairs": index.pairs,
        "last": np.array([len(index.pairs) - 1], np.int64),
        "offsets": np.arange(index.branching[level], dtype=np.int64),
    }  # fmt: skip
    return Step(nodes, tables, _IN)


def our_step(trie: Trie, level: int, code_sizes: Sequence[int]) -> Step:
    """Returns this decoder's step from nodes of `level` ≥ 1 (`export.graphs.decoder`, `children`).

    It uses rows of all tokens, rows of the children's tokens, or CSR form, depending on the sizes of the codes.
    """
    n = helper.make_node
    children = np.arange(trie.n_nodes[level], dtype=np.int64)
    every = np.ones(len(children), np.bool_)
    if level in levels_by_rows(code_sizes):
        nodes = [
            n("Gather", ["row_ok", "at"], ["ok"], axis=0),
            n("DequantizeLinear", ["ok", "minus_never", "allowed"], ["closed"]),
            n("Add", ["log_prob", "closed"], ["candidate"]),
            n("Gather", ["row_child", "at"], ["next"], axis=0),
            n("Shape", ["log_prob"], ["shape"]),
            n("Expand", ["all_tokens", "shape"], ["token"]),
        ]
        size = int(code_sizes[level])
        tables: dict[str, Array] = {
            "row_ok": trie.rows(level, size, every).view(np.int8),
            "row_child": trie.rows(level, size, children),
            "all_tokens": np.arange(size, dtype=np.int64)[None],
            "minus_never": np.array(-NEVER, np.float32),
            "allowed": np.array(1, np.int8),
        }
        return Step(nodes, tables, _IN)
    by_row = level in levels_with_row_tokens(code_sizes)
    nodes = [
        n("Gather", ["child_ok", "at"], ["bits"], axis=0),
        n("Cast", ["bits"], ["byte"], to=TensorProto.INT32),
        n("Gather", ["closed_by_byte", "byte"], ["closed_in_eights"], axis=0),
        n("Gather", ["first", "at"], ["begin"], axis=0),
        n("Add", ["begin", "slots"], ["place"]),
        n("Min", ["place", "last"], ["next"]),
        n("Gather", ["tokens", "at" if by_row else "next"], ["token"], axis=0),
        n("GatherElements", ["log_prob", "token"], ["picked"], axis=1),
        n("Reshape", ["closed_in_eights", "rows"], ["closed"]),
        n("Add", ["picked", "closed"], ["candidate"]),
    ]
    first, places = trie.first_child[level], 8 * trie.row_bytes(level)
    tables = {
        "child_ok": trie.row_bits(level, every), "closed_by_byte": closed_by_byte(),
        "first": first[:-1, None],
        "tokens": trie.row_tokens(level, places) if by_row else trie.token[level],
        "slots": np.arange(places, dtype=np.int64),
        "rows": np.array([-1, places], np.int64),
        "last": np.array([trie.n_nodes[level] - 1], np.int64),
    }  # fmt: skip
    return Step(nodes, tables, _IN)


def static_step(index: StaticIndex, level: int) -> Step:
    """STATIC's step from states of `level`: dense as long as its tables reach."""
    return dense_step(index) if level < DENSE_LEVELS else sparse_step(index, level)


__all__ = ["NEVER", "StaticIndex", "Step", "our_step", "static_step"]
