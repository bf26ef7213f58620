"""One catalogue on the device: the inputs of the decoder graphs that stay between runs."""

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
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.cells import CELLS_FILE
from service.artifact.graphs.graph_names import NEVER, level_input
from service.artifact.graphs.level_tables import levels_of_few_nodes, levels_with_row_tokens, token_dtype
from service.artifact.trie import Trie
from service.common.errors import ArtifactError
from service.engine.decode.bounded_cache import BoundedCache
from service.engine.decode.cell_tables import CellArena, CellTables
from service.engine.decode.delta_table import DeltaTable
from service.engine.decode.filters import FilterTable
from service.engine.decode.item_noise import ItemNoise
from service.engine.decode.mask_arena import MaskArena
from service.engine.decode.mask_parts import mask_parts
from service.engine.decode.ranking import Ranking
from service.engine.decode.search_shape import SearchShape, search_shape
from service.engine.decode.signal_inputs import ListableSignals
from service.engine.decoding import SearchSizes
from service.engine.onnx_session import Values
from service.engine.placement import Placement

Arena = MaskArena | CellArena

# What graphs of before read: the type of `ROW_OK` there was bool, and the number of children was an input.
_PACKED_ROWS = "tensor(int8)"
_COUNT = "count"
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
        dense: Whether the graphs score the whole catalogue.
        packed: Whether the graphs look up the masks of a node's children by the node, in bits or by token; graphs of
            before look up a byte for each child.
        cells: Whether they score the best cells of it.
    """

    code_sizes: tuple[int, ...]
    by_rows: frozenset[int]
    item_dtype: np.dtype[np.floating[Any]]
    dense: bool
    packed: bool
    cells: bool = False

    @property
    def proposes(self) -> bool:
        """Whether items without signals join the beam's."""
        return self.dense or self.cells

    @classmethod
    def of(cls, code_sizes: Sequence[int], decoder: Mapping[str, str]) -> DecoderTraits:
        """Reads the traits off the graphs.

        Args:
            code_sizes: From the manifest.
            decoder: The onnxruntime type of the decoder's inputs, by name.
        """
        half = decoder[names.ITEM_TABLE] == "tensor(float16)"
        levels = range(len(code_sizes))
        return cls(
            code_sizes=tuple(int(size) for size in code_sizes),
            by_rows=frozenset(level for level in levels if level_input(names.ROW_OK, level) in decoder),
            item_dtype=np.dtype(np.float16 if half else np.float32),
            dense=names.ITEM_OK in decoder,
            packed=all(level_input(names.NODE_OK, level) not in decoder for level in levels[1:])
            and all(decoder.get(level_input(names.ROW_OK, level), _PACKED_ROWS) == _PACKED_ROWS for level in levels),
            cells=names.CELL_VECTOR in decoder,
        )


class Tables:
    """The catalogue's inputs on the device, and the caches of what is computed from them. Safe for several threads.

    Attributes:
        traits: What the graphs read.
        trie: The catalogue's trie.
        delta: The items that no trie holds yet, if there are any.
        ranking: Weights of the network's scores, and signals of items.
        noise: The hashes of items, from which the noise of sampled lists follows.
        cells: The cells of the catalogue, if the graphs score them.
        filters: The masks of the filters.
        arena: Where these masks lie on the device.
        signals: The signals that count for lists.
        item_rows: Rows of the item table.
        dense_rows: Rows of the item table that are scored with every list; 0 if the graphs do not score the catalogue.
        values: Inputs that all graphs share.
    """

    def __init__(
        self,
        artifact: Artifact,
        placement: Placement,
        traits: DecoderTraits,
        filters: FilterTable,
        arena: Arena,
        values: Values,
        ranking: Ranking,
        noise: ItemNoise,
        delta: DeltaTable | None = None,
        cells: CellTables | None = None,
    ) -> None:
        """Use `of` for an artefact as it was exported, and `renewed` for a catalogue that has changed."""
        self.traits, self.ranking, self.noise = traits, ranking, noise
        self.trie, self.delta, self.cells = artifact.trie, delta, cells
        self.filters, self.arena = filters, arena
        self.signals = ListableSignals(artifact.trie, dense=traits.dense)
        self.item_rows, self.dense_rows = len(artifact.item_table), _dense_rows(artifact, traits)
        self.values = values
        self._item_table, self._placement = artifact.item_table, placement
        self._lock = threading.Lock()
        self._shapes: OrderedDict[Hashable, SearchShape] = OrderedDict()
        self._exclusions: BoundedCache[tuple[int, bytes], Mapping[str, Array]]
        self._exclusions = BoundedCache(_EXCLUSIONS_MAX, EXCLUSION_BYTES_MAX)

    @classmethod
    def of(cls, artifact: Artifact, placement: Placement, traits: DecoderTraits, filter_bytes_max: int) -> Tables:
        """Puts an artefact's catalogue on the device; masks of filters take up to `filter_bytes_max` there."""
        cells = _cell_tables(artifact, placement, traits)
        rows, arena = _dense_rows(artifact, traits), _arena(artifact, placement, traits, cells)
        filters = FilterTable(artifact.trie, artifact.catalogue, rows=rows, bytes_max=filter_bytes_max, places=arena)
        ranking, noise = Ranking.of_artifact(artifact), ItemNoise.of(artifact.catalogue)
        values = {
            names.JOIN: placement.put(np.zeros(1, np.float32)),
            **_item_tables(artifact, placement, traits),
            **_trie_inputs(artifact.trie, placement, traits),
            **_item_inputs(artifact, placement, noise),
            **_bias_inputs(ranking, len(artifact.item_table), placement, traits, cells),
            **(cells.values if cells else {}),
        }
        return cls(artifact, placement, traits, filters, arena, values, ranking, noise, cells=cells)

    def renewed(
        self, artifact: Artifact, delta: DeltaTable | None, stand_in: Mapping[int, int] | None = None
    ) -> Tables:
        """Returns the tables of the same model over a catalogue that has changed.

        What is on the device already is not put there again, and filters keep their ids.

        Args:
            artifact: The artefact's parts with the present catalogue.
            delta: The items that no trie holds yet, if there are any.
            stand_in: The exported item whose signals each new item takes.
        """
        placement, traits = self._placement, self.traits
        waiting = None if delta is None else delta.items
        same_trie = artifact.trie is self.trie
        cells = self.cells if same_trie else _cell_tables(artifact, placement, traits)
        rows, arena = _dense_rows(artifact, traits), _arena(artifact, placement, traits, cells)
        filters = self.filters.renewed(artifact.trie, artifact.catalogue, waiting, rows, arena)
        ranking = self.ranking.with_stand_ins(stand_in or {})
        noise = self.noise.over(artifact.catalogue)
        values = dict(self.values)
        table_changed = artifact.item_table is not self._item_table
        if not same_trie:
            values |= _trie_inputs(artifact.trie, placement, traits)
            values |= cells.values if cells else {}
        if table_changed:
            values |= _item_tables(artifact, placement, traits)
        if table_changed or not same_trie or not ranking.same_stand_ins(self.ranking):
            values |= _bias_inputs(ranking, len(artifact.item_table), placement, traits, cells)
        if not same_trie or table_changed:
            values |= _item_inputs(artifact, placement, noise)
        return Tables(artifact, placement, traits, filters, arena, values, ranking, noise, delta, cells)

    def set_ranking(self, ranking: Ranking) -> None:
        """Ranks with other weights and signals of items from the next run on."""
        self.ranking = ranking
        # A new mapping: bindings tell groups of values apart by identity.
        bias = _bias_inputs(ranking, self.item_rows, self._placement, self.traits, self.cells)
        self.values = {**self.values, **bias}

    def set_joined_candidates(self, join: bool) -> None:
        """Sets whether other candidates join those of the beam."""
        value = np.full(1, 0.0 if join else NEVER, np.float32)
        self.values = {**self.values, names.JOIN: self._placement.put(value)}

    def shape(self, sizes: SearchSizes, rows: int) -> SearchShape:
        """Returns the inputs that follow from what a run keeps and from the rows of the batch."""
        key = (sizes, rows)
        with self._lock:
            shape = self._shapes.get(key)
            if shape is None:
                shape = self._shapes[key] = self._make_shape(sizes, rows)
                if len(self._shapes) > _SHAPES_MAX:
                    self._shapes.popitem(last=False)
            return shape

    def most_joined(self, signals: int) -> int:
        """Returns how many candidates can join at most, in a run that takes in this many items with signals."""
        if self.cells is not None:
            return self.cells.cells.rows + 1 + signals
        return self.dense_rows or signals

    def exclusions(self, key: tuple[int, bytes], compute: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
        """Returns the inputs that `compute` gives for a request's exclusions, from the cache if they are there.

        They are valid for this catalogue and stock, and must not be changed.

        Args:
            key: Filter and excluded items.
            compute: Makes the inputs.
        """
        return self._exclusions.get(key, compute, lambda inputs: _nbytes(key, inputs))

    def _make_shape(self, sizes: SearchSizes, rows: int) -> SearchShape:
        by_rows = self.traits.by_rows
        packed = self.traits.packed
        places = [
            self.traits.code_sizes[level] if level in by_rows else _places(self.trie, level, packed=packed)
            for level in range(self.trie.levels)
        ]
        return search_shape(self._placement, places, sizes=sizes, rows=rows, by_rows=by_rows, packed=packed)


def _nbytes(key: tuple[int, bytes], inputs: Mapping[str, Array]) -> int:
    return len(key[1]) + sum(array.nbytes for array in inputs.values())


def _arena(artifact: Artifact, placement: Placement, traits: DecoderTraits, cells: CellTables | None) -> Arena:
    tables = {level: traits.code_sizes[level] for level in sorted(traits.by_rows)}
    parts = mask_parts(artifact.trie, tables, _dense_rows(artifact, traits), packed=traits.packed)
    masks = MaskArena(parts, placement)
    return masks if cells is None else CellArena(masks, artifact.trie, cells.cells, placement)


def _cell_tables(artifact: Artifact, placement: Placement, traits: DecoderTraits) -> CellTables | None:
    """The cells, if the graphs score them. Raises ArtifactError if the artefact has none."""
    if not traits.cells:
        return None
    if artifact.cells is None:
        raise ArtifactError(
            f"{artifact.folder}: the graphs read {CELLS_FILE}, which is missing; export the model again"
        )
    return CellTables(artifact.cells, artifact.trie, placement)


def _dense_rows(artifact: Artifact, traits: DecoderTraits) -> int:
    return len(artifact.item_table) if traits.dense else 0


def _item_tables(artifact: Artifact, placement: Placement, traits: DecoderTraits) -> dict[str, Any]:
    """The item table, and the attributes beside its rows where the encoder reads them."""
    tables = {names.ITEM_TABLE: placement.put(artifact.item_table.astype(traits.item_dtype, copy=False))}
    if artifact.item_attributes is not None:
        tables[names.ITEM_ATTRIBUTES] = placement.put(artifact.item_attributes)
    return tables


def _trie_inputs(trie: Trie, placement: Placement, traits: DecoderTraits) -> dict[str, ort.OrtValue]:
    """The trie in CSR form, and the tables of the levels that have them."""
    arrays: dict[str, Array] = {names.LEAF_ITEM: trie.leaf_item}
    with_tokens = (levels_with_row_tokens if traits.packed else levels_of_few_nodes)(traits.code_sizes)
    for level in range(trie.levels):
        arrays[level_input(names.TOKEN, level)] = trie.token[level]
        if level in traits.by_rows:
            nodes = np.arange(trie.n_nodes[level], dtype=np.int64)
            table = trie.rows(level, traits.code_sizes[level], nodes)
            arrays[level_input(names.ROW_CHILD, level)] = table.reshape(-1) if traits.packed else table
        elif level > 0:
            found = _level_arrays(trie, level, traits, with_tokens=level in with_tokens)
            arrays |= {level_input(name, level): array for name, array in found.items()}
    return {name: placement.put(array) for name, array in arrays.items()}


def _level_arrays(trie: Trie, level: int, traits: DecoderTraits, *, with_tokens: bool) -> dict[str, Array]:
    """The inputs of a level that is not looked up by rows."""
    first, places = trie.first_child[level], _places(trie, level, packed=traits.packed)
    arrays: dict[str, Array] = {
        names.FIRST: first[:-1] if traits.packed and with_tokens else first[:-1, None],
        names.SLOTS: np.arange(places, dtype=np.int64),
        names.LAST_NODE: np.array([trie.n_nodes[level] - 1], np.int64),
    }
    if not traits.packed:
        arrays[_COUNT] = np.diff(first)[:, None]
    if with_tokens:
        tokens = trie.row_tokens(level, places)
        dtype = token_dtype(traits.code_sizes[level]) if traits.packed else "int32"
        arrays[names.ROW_TOKEN] = tokens.astype(dtype, copy=False)
    return arrays


def _places(trie: Trie, level: int, *, packed: bool) -> int:
    """Places of a node's children: as many as the most have, and a multiple of 8 where masks are in bits."""
    return 8 * trie.row_bytes(level) if packed and level > 0 else trie.branching[level]


def _item_inputs(artifact: Artifact, placement: Placement, noise: ItemNoise) -> dict[str, ort.OrtValue]:
    """The tokens of every item, and its noise."""
    trie, rows = artifact.trie, len(artifact.item_table)
    path = np.zeros((rows, trie.levels), np.int32)  # zeros for rows that are no item of the trie
    path[trie.leaf_item] = trie.paths()
    return {names.ITEM_PATH: placement.put(path), names.ITEM_HASH: placement.put(noise.rows(rows))}


def _bias_inputs(
    ranking: Ranking, rows: int, placement: Placement, traits: DecoderTraits, cells: CellTables | None
) -> dict[str, ort.OrtValue]:
    """What signals of items add, by group and row: flat where a run looks up a few rows only."""
    bias = ranking.bias_of_rows(rows)
    of_cells = cells.bias(bias) if cells else {}
    return {names.ITEM_BIAS: placement.put(bias if traits.dense else bias.reshape(-1)), **of_cells}
