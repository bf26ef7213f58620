"""One catalogue on the device: what every decoder run reads and no request changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from service.artifact.array_types import Array
from service.artifact.artifact import Artifact
from service.artifact.graph_interface import levels_with_row_tokens
from service.artifact.graph_names import NEVER
from service.artifact.noise import node_hash
from service.artifact.trie import Trie
from service.engine.decode.delta_table import DeltaTable
from service.engine.decode.filters import FilterTable, Mask
from service.engine.jobs import EVERYTHING
from service.engine.onnx_session import Placement, Values

# Stacks of masks on the device, besides the one of everything.
STACK_BYTES_MAX = 64 * 2**20
_SHAPES_MAX = 256
# A few KB each, for a history of a few hundred items.
_REMEMBERED_MAX = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """The masks of some filters as one input a level, and each one's row in it."""

    values: Values
    row: dict[Mask, int]

    @property
    def nbytes(self) -> int:
        return sum(sum(len(ok) for ok in mask.node_ok) + len(mask.item_ok) for mask in self.row)


@dataclass(frozen=True, slots=True)
class Shape:
    """What follows from the width, the size of a batch and the graph. `kept` [levels] nodes at each level; `node_base`
    rows of zeros, for batches with one mask; `by_rows` the levels where a child's place is its token."""

    values: Values
    node_base: Values
    kept: tuple[int, ...]
    by_rows: frozenset[int]


class Tables:
    """`values` are shared by all graphs; `delta` has the items that no trie holds yet.

    Safe to use from several threads.
    """

    def __init__(
        self,
        artifact: Artifact,
        at: Placement,
        dtype: np.dtype[np.floating[Any]],
        by_rows: frozenset[int],
        *,
        dense: bool = False,
        drawn: bool = False,
        before: Tables | None = None,
        delta: DeltaTable | None = None,
    ) -> None:
        """`dtype` is the graphs' type of item vectors, `by_rows` the levels that the decoder looks up by rows, `dense`
        says whether the best items by q · e join the beam's, `drawn` whether sampled lists are drawn from both; `delta`
        has the items that wait outside the trie. What `before` has on the device already is not put there again, and
        filters keep its numbers."""
        self.trie, self.delta = artifact.trie, delta
        self._sizes = tuple(int(size) for size in artifact.network["code_sizes"])
        self._by_rows = by_rows
        # Rows of the item table that are scored with every list.
        self.dense_rows = len(artifact.item_table) if dense else 0
        self.drawn = drawn
        self._table, self._dtype, self._at = artifact.item_table, dtype, at
        self._lock = threading.Lock()
        self._shapes: OrderedDict[Hashable, Shape] = OrderedDict()
        self._stacks: OrderedDict[frozenset[Mask], Stack] = OrderedDict()
        self._remembered: OrderedDict[Hashable, Mapping[str, Array]] = OrderedDict()
        values: dict[str, ort.OrtValue] = {}
        if before is None:
            self.filters = FilterTable(self.trie, artifact.catalogue, rows=self.dense_rows)
            values["join"] = at.put(np.zeros(1, np.float32))
            values["blend"] = at.put(np.array([artifact.manifest["blend"]], np.float32))
        else:
            waiting = None if delta is None else delta.items
            self.filters = before.filters.renewed(self.trie, artifact.catalogue, waiting, self.dense_rows)
            values |= {name: before.values[name] for name in ("blend", "join")}
        if before is not None and before.trie is self.trie:
            values = {**before.values, **values}
        else:
            for level in range(self.trie.levels):
                values |= {name: at.put(array) for name, array in _level_inputs(self.trie, level).items()}
            for level in self._by_rows:
                nodes = np.arange(self.trie.n_nodes[level], dtype=np.int64)
                values[f"row_child_{level}"] = at.put(self.trie.rows(level, self._sizes[level], nodes))
            for level in levels_with_row_tokens(self._sizes):
                values[f"row_token_{level}"] = at.put(self.trie.row_tokens(level))
            values["leaf_item"] = at.put(self.trie.leaf_item)
        if before is not None and before._table is self._table:
            values["item_table"] = before.values["item_table"]
        else:
            values["item_table"] = at.put(self._table.astype(dtype, copy=False))
        if dense and not (before and before.trie is self.trie and before.dense_rows == self.dense_rows):
            values["item_path"] = at.put(_item_path(self.trie, self.dense_rows))
            if drawn:
                values["item_hash"] = at.put(node_hash(self.trie.levels, self.dense_rows))
        self.values: Values = values
        self._everything = self._stacked([self.filters.mask(EVERYTHING)])

    def renewed(self, artifact: Artifact, delta: DeltaTable | None) -> Tables:
        """Tables of the same model over a catalogue that has changed."""
        dense, drawn = self.dense_rows > 0, self.drawn
        return Tables(
            artifact, self._at, self._dtype, self._by_rows, dense=dense, drawn=drawn, before=self, delta=delta
        )

    def joins(self, sampled: bool) -> bool:
        """Whether dense candidates join the beam of such lists."""
        return self.drawn if sampled else self.dense_rows > 0

    def set_blend(self, blend: float) -> None:
        # A new mapping: bindings tell groups of values apart by identity.
        self.values = {**self.values, "blend": self._at.put(np.array([blend], np.float32))}

    def set_dense_candidates(self, join: bool) -> None:
        self.values = {**self.values, "join": self._at.put(np.full(1, 0.0 if join else NEVER, np.float32))}

    def shape(self, width: int, rows: int, sampled: bool, dense: int) -> Shape:
        """For `dense` candidates beside the beam, where the graph has them."""
        key = (width, rows, sampled, dense)
        with self._lock:
            shape = self._shapes.get(key)
            if shape is None:
                by_rows = frozenset[int]() if sampled and not self.drawn else self._by_rows
                shape = self._shapes[key] = self._make_shape(width, rows, by_rows, dense)
                if len(self._shapes) > _SHAPES_MAX:
                    self._shapes.popitem(last=False)
            return shape

    def remembered(self, key: Hashable, work_out: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
        """Inputs that were worked out for `key` under this catalogue and stock; they must not be changed."""
        with self._lock:
            if key in self._remembered:
                self._remembered.move_to_end(key)
                return self._remembered[key]
        found = work_out()
        with self._lock:
            self._remembered[key] = found
            if len(self._remembered) > _REMEMBERED_MAX:
                self._remembered.popitem(last=False)
        return found

    def stack(self, masks: Sequence[Mask]) -> Stack:
        """A stack that has all of `masks`. The one of an earlier batch serves where it has them; a new one takes the
        latest with it as far as memory allows, so filters in use come together instead of being stacked per batch."""
        if all(mask in self._everything.row for mask in masks):
            return self._everything
        wanted = frozenset(masks)
        with self._lock:
            for key in reversed(self._stacks):
                if wanted <= key:
                    self._stacks.move_to_end(key)
                    return self._stacks[key]
            members = dict.fromkeys(masks)
            latest = next(reversed(self._stacks.values()), None)
            room = STACK_BYTES_MAX // 2 // max(1, sum(self.trie.n_nodes) + self.dense_rows) - len(members)
            if latest is not None and room > 0:
                members |= dict.fromkeys([mask for mask in latest.row if mask not in members][:room])
            stack = self._stacked(list(members))
            self._stacks[frozenset(members)] = stack
            while sum(s.nbytes for s in self._stacks.values()) > STACK_BYTES_MAX and len(self._stacks) > 1:
                self._stacks.popitem(last=False)
            return stack

    def _stacked(self, masks: Sequence[Mask]) -> Stack:
        values = {}
        for level in range(self.trie.levels):
            # One mask is used where it lies.
            parts = [mask.node_ok[level].view(np.bool_) for mask in masks]
            flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
            values[f"node_ok_{level}"] = self._at.put(flat.reshape(len(masks), -1) if level == 0 else flat)
            if level in self._by_rows:
                tables = [self.trie.rows(level, self._sizes[level], part) for part in parts]
                values[f"row_ok_{level}"] = self._at.put(np.concatenate(tables))
        if self.dense_rows:
            values["item_ok"] = self._at.put(np.stack([mask.item_ok for mask in masks]))
        return Stack(values, {mask: row for row, mask in enumerate(masks)})

    def _make_shape(self, width: int, rows: int, by_rows: frozenset[int], dense: int) -> Shape:
        values: dict[str, ort.OrtValue] = {}
        node_base: dict[str, ort.OrtValue] = {}
        host, put = self._at.host, self._at.put
        kept = 1
        counts = []
        for level, most in enumerate(self.trie.branching):
            branching = self._sizes[level] if level in by_rows else most
            if level > 0:
                values[f"flat_{level}"] = host(np.array([-1, 1, kept * branching], np.int64))
                values[f"beam_{level}"] = host(np.array([-1, kept, 1], np.int64))
                values[f"cube_{level}"] = host(np.array([-1, kept, branching], np.int64))
                row_base = np.arange(rows, dtype=np.int64).reshape(-1, 1, 1) * (kept * branching)
                values[f"row_base_{level}"] = put(row_base)
                place = np.stack([np.arange(kept), np.full(kept, NEVER)]).astype(np.float32)
                values[f"place_{level}"] = put(place)
                values[f"n_slots_{level}"] = put(np.array([branching], np.int64))
                base = np.zeros(rows * kept, np.int64)
                node_base[f"node_base_{level}"] = put(base if level in by_rows else base[:, None])
            kept = min(width, kept * branching)
            counts.append(kept)
            values[f"keep_{level}"] = host(np.array([kept], np.int64))
        dense = min(dense, self.dense_rows)
        values["keep_dense"] = host(np.array([dense], np.int64))
        values["dense_shape"] = host(np.array([-1, 1, dense], np.int64))
        return Shape(values, node_base, tuple(counts), by_rows)


def _item_path(trie: Trie, rows: int) -> Array:
    """[rows, K] tokens by item; zeros for what is no item of the trie."""
    path = np.zeros((rows, trie.levels), np.int64)
    path[trie.leaf_item] = trie.paths()
    return path


def _level_inputs(trie: Trie, level: int) -> dict[str, Array]:
    n_nodes = trie.n_nodes[level]
    arrays: dict[str, Array] = {f"token_{level}": trie.token[level], f"node_hash_{level}": node_hash(level, n_nodes)}
    if level > 0:
        first = trie.first_child[level]
        arrays |= {
            f"first_{level}": first[:-1, None],
            f"count_{level}": np.diff(first)[:, None],
            f"slots_{level}": np.arange(trie.branching[level], dtype=np.int64),
            f"last_node_{level}": np.array([n_nodes - 1], np.int64),
        }
    return arrays
