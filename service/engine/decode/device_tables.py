"""One catalogue on the device: the inputs of the decoder graphs that stay between runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from service.artifact import graph_names as names
from service.artifact.array_types import Array
from service.artifact.artifact import Artifact
from service.artifact.graph_interface import levels_with_row_tokens
from service.artifact.graph_names import NEVER, level_input
from service.artifact.noise import node_hash
from service.artifact.trie import Trie
from service.engine.decode.delta_table import DeltaTable
from service.engine.decode.filters import FilterTable
from service.engine.decode.mask_arena import MaskArena
from service.engine.decode.search_shape import SearchShape, search_shape
from service.engine.onnx_session import Values
from service.engine.placement import Placement

_SHAPES_MAX = 256
# A few KB each for a history of a few hundred items, but callers choose what they exclude.
_EXCLUSIONS_MAX = 1024
EXCLUSION_BYTES_MAX = 16 * 2**20


@dataclass(frozen=True, slots=True)
class DecoderTraits:
    """What distinguishes the decoder graphs of one artefact from those of another.

    Attributes:
        code_sizes: V_l, the number of different tokens at each level.
        by_rows: Levels at which the decoder looks children up by token.
        item_dtype: Type of the item vectors in the graphs.
        dense: Whether dense candidates join those of the beam.
        dense_sampled: The same for sampled lists: whether the sampler is a blend sampler.
    """

    code_sizes: tuple[int, ...]
    by_rows: frozenset[int]
    item_dtype: np.dtype[np.floating[Any]]
    dense: bool
    dense_sampled: bool

    @classmethod
    def of(cls, code_sizes: Sequence[int], decoder: Mapping[str, str], sampler: Collection[str]) -> DecoderTraits:
        """Reads the traits off the graphs.

        Args:
            code_sizes: From the manifest.
            decoder: The onnxruntime type of the decoder's inputs, by name.
            sampler: The names of the sampler's inputs.
        """
        half = decoder[names.ITEM_TABLE] == "tensor(float16)"
        levels = range(len(code_sizes))
        return cls(
            code_sizes=tuple(int(size) for size in code_sizes),
            by_rows=frozenset(level for level in levels if level_input(names.ROW_OK, level) in decoder),
            item_dtype=np.dtype(np.float16 if half else np.float32),
            dense=names.ITEM_PATH in decoder,
            dense_sampled=names.ITEM_PATH in sampler,
        )


class Tables:
    """The catalogue's inputs on the device, and the caches of what is computed from them. Safe for several threads.

    Attributes:
        traits: What the graphs read.
        trie: The catalogue's trie.
        delta: The items that no trie holds yet, if there are any.
        filters: The masks of the filters.
        arena: Where these masks lie on the device.
        dense_rows: Rows of the item table that are scored with every list; 0 without dense candidates.
        values: Inputs that all graphs share.
    """

    def __init__(
        self,
        artifact: Artifact,
        placement: Placement,
        traits: DecoderTraits,
        filters: FilterTable,
        arena: MaskArena,
        values: Values,
        delta: DeltaTable | None = None,
    ) -> None:
        """Use `of` for an artefact as it was exported, and `renewed` for a catalogue that has changed."""
        self.traits = traits
        self.trie, self.delta = artifact.trie, delta
        self.filters, self.arena = filters, arena
        self.dense_rows = _dense_rows(artifact, traits)
        self.values = values
        self._item_table, self._placement = artifact.item_table, placement
        self._lock = threading.Lock()
        self._shapes: OrderedDict[Hashable, SearchShape] = OrderedDict()
        self._exclusions: OrderedDict[tuple[int, bool, bytes], Mapping[str, Array]] = OrderedDict()
        self._exclusion_bytes = 0

    @classmethod
    def of(cls, artifact: Artifact, placement: Placement, traits: DecoderTraits, filter_bytes_max: int) -> Tables:
        """Puts an artefact's catalogue on the device; masks of filters take up to `filter_bytes_max` there."""
        rows, arena = _dense_rows(artifact, traits), _arena(artifact, placement, traits)
        filters = FilterTable(artifact.trie, artifact.catalogue, rows=rows, bytes_max=filter_bytes_max, places=arena)
        values = {
            names.JOIN: placement.put(np.zeros(1, np.float32)),
            names.BLEND: placement.put(np.array([artifact.manifest["blend"]], np.float32)),
            names.ITEM_TABLE: placement.put(artifact.item_table.astype(traits.item_dtype, copy=False)),
            **_trie_inputs(artifact.trie, placement, traits),
            **_dense_inputs(artifact, placement, traits),
        }
        return cls(artifact, placement, traits, filters, arena, values)

    def renewed(self, artifact: Artifact, delta: DeltaTable | None) -> Tables:
        """Returns the tables of the same model over a catalogue that has changed.

        What is on the device already is not put there again, and filters keep their ids.
        """
        placement, traits = self._placement, self.traits
        waiting = None if delta is None else delta.items
        rows, arena = _dense_rows(artifact, traits), _arena(artifact, placement, traits)
        filters = self.filters.renewed(artifact.trie, artifact.catalogue, waiting, rows, arena)
        values = dict(self.values)
        if artifact.trie is not self.trie:
            values |= _trie_inputs(artifact.trie, placement, traits)
        if artifact.item_table is not self._item_table:
            values[names.ITEM_TABLE] = placement.put(artifact.item_table.astype(traits.item_dtype, copy=False))
        if artifact.trie is not self.trie or rows != self.dense_rows:
            values |= _dense_inputs(artifact, placement, traits)
        return Tables(artifact, placement, traits, filters, arena, values, delta)

    def dense_joins(self, sampled: bool) -> bool:
        """Returns whether dense candidates join the beam of such lists."""
        return self.traits.dense_sampled if sampled else self.traits.dense

    def set_blend(self, blend: float) -> None:
        """Sets the weight of the dense score, 0 … 1."""
        # A new mapping: bindings tell groups of values apart by identity.
        self.values = {**self.values, names.BLEND: self._placement.put(np.array([blend], np.float32))}

    def set_dense_candidates(self, join: bool) -> None:
        """Sets whether dense candidates join the beam, where the graphs have them."""
        value = np.full(1, 0.0 if join else NEVER, np.float32)
        self.values = {**self.values, names.JOIN: self._placement.put(value)}

    def shape(self, width: int, rows: int, sampled: bool, dense: int) -> SearchShape:
        """Returns the inputs that follow from the width, the rows of the batch and the number of dense candidates."""
        key = (width, rows, sampled, dense)
        with self._lock:
            shape = self._shapes.get(key)
            if shape is None:
                shape = self._shapes[key] = self._make_shape(width, rows, sampled, dense)
                if len(self._shapes) > _SHAPES_MAX:
                    self._shapes.popitem(last=False)
            return shape

    def exclusions(
        self, key: tuple[int, bool, bytes], compute: Callable[[], Mapping[str, Array]]
    ) -> Mapping[str, Array]:
        """Returns the inputs that `compute` gives for a request's exclusions, from the cache if they are there.

        They are valid for this catalogue and stock, and must not be changed.

        Args:
            key: Filter, whether the list is sampled, and the excluded items.
            compute: Makes the inputs.
        """
        with self._lock:
            if key in self._exclusions:
                self._exclusions.move_to_end(key)
                return self._exclusions[key]
        inputs = compute()
        with self._lock:
            if key not in self._exclusions:
                self._exclusion_bytes += _nbytes(key, inputs)
                self._exclusions[key] = inputs
            while len(self._exclusions) > _EXCLUSIONS_MAX or self._exclusion_bytes > EXCLUSION_BYTES_MAX:
                self._exclusion_bytes -= _nbytes(*self._exclusions.popitem(last=False))
        return inputs

    def _make_shape(self, width: int, rows: int, sampled: bool, dense: int) -> SearchShape:
        # A path sampler looks no level up by rows.
        by_rows = frozenset[int]() if sampled and not self.traits.dense_sampled else self.traits.by_rows
        places = [
            self.traits.code_sizes[level] if level in by_rows else most
            for level, most in enumerate(self.trie.branching)
        ]
        dense = min(dense, self.dense_rows)
        return search_shape(self._placement, places, width=width, rows=rows, by_rows=by_rows, dense=dense)


def _nbytes(key: tuple[int, bool, bytes], inputs: Mapping[str, Array]) -> int:
    return len(key[2]) + sum(array.nbytes for array in inputs.values())


def _arena(artifact: Artifact, placement: Placement, traits: DecoderTraits) -> MaskArena:
    tables = {level: traits.code_sizes[level] for level in sorted(traits.by_rows)}
    return MaskArena(artifact.trie, tables, _dense_rows(artifact, traits), placement)


def _dense_rows(artifact: Artifact, traits: DecoderTraits) -> int:
    return len(artifact.item_table) if traits.dense else 0


def _trie_inputs(trie: Trie, placement: Placement, traits: DecoderTraits) -> dict[str, ort.OrtValue]:
    """The trie in CSR form, and the tables of the levels that have them."""
    arrays: dict[str, Array] = {names.LEAF_ITEM: trie.leaf_item}
    for level in range(trie.levels):
        arrays |= {level_input(name, level): array for name, array in _level_arrays(trie, level).items()}
    for level in traits.by_rows:
        nodes = np.arange(trie.n_nodes[level], dtype=np.int64)
        arrays[level_input(names.ROW_CHILD, level)] = trie.rows(level, traits.code_sizes[level], nodes)
    for level in levels_with_row_tokens(traits.code_sizes):
        arrays[level_input(names.ROW_TOKEN, level)] = trie.row_tokens(level)
    return {name: placement.put(array) for name, array in arrays.items()}


def _level_arrays(trie: Trie, level: int) -> dict[str, Array]:
    n_nodes = trie.n_nodes[level]
    arrays: dict[str, Array] = {names.TOKEN: trie.token[level], names.NODE_HASH: node_hash(level, n_nodes)}
    if level > 0:
        first = trie.first_child[level]
        arrays |= {
            names.FIRST: first[:-1, None],
            names.COUNT: np.diff(first)[:, None],
            names.SLOTS: np.arange(trie.branching[level], dtype=np.int64),
            names.LAST_NODE: np.array([n_nodes - 1], np.int64),
        }
    return arrays


def _dense_inputs(artifact: Artifact, placement: Placement, traits: DecoderTraits) -> dict[str, ort.OrtValue]:
    """What dense candidates need: the tokens of every item, and its noise where sampled lists have candidates too."""
    if not traits.dense:
        return {}
    trie, rows = artifact.trie, _dense_rows(artifact, traits)
    path = np.zeros((rows, trie.levels), np.int64)  # zeros for rows that are no item of the trie
    path[trie.leaf_item] = trie.paths()
    values = {names.ITEM_PATH: placement.put(path)}
    if traits.dense_sampled:
        values[names.ITEM_HASH] = placement.put(node_hash(trie.levels, rows))
    return values
