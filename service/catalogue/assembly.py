"""The catalogue to serve, put together from the export and what has changed since.

Items are looked at one by one only when they change, so that thousands of changes a minute cost little however large
the catalogue is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.artifact import Artifact
from service.artifact.items.catalogue_changes import following
from service.artifact.items.catalogue_item import CatalogueItem
from service.catalogue.merging import merged
from service.catalogue.new_item_paths import FreePaths, with_paths
from service.catalogue.placing import By, Likeness, Place
from service.catalogue.updates_file import NewItem, Updates
from service.common import logs
from service.engine.decode.delta_table import MOST_WAITING, DeltaTable
from service.engine.live_catalogue import LiveCatalogue
from service.store.items import StoredItem

log = logs.get(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Build:
    """The artefact with the new items of one build in its trie and item table.

    Attributes:
        artifact: The artefact; its catalogue is that of the export.
        placed: Indices of the items that got a path.
    """

    artifact: Artifact
    placed: frozenset[int] = frozenset()


def build(exported: Artifact, new: Mapping[str, NewItem], likeness: Likeness) -> Build:
    """Gives every new item a path next to the item it resembles and a row in the item table.

    It starts from the export every time, not from an earlier build, so the same items get the same paths.

    Args:
        exported: The artefact as exported.
        new: The new items by id, in the order of their indices.
        likeness: Finds the exported items that a new one resembles.
    """
    catalogue = exported.catalogue
    free_paths = FreePaths(exported.trie, exported.network["code_sizes"])
    vectors, paths, indices = [], [], []
    for index, item in enumerate(new.values(), start=catalogue.first_new):
        vector, nearest = likeness.of(item)
        vectors.append(vector)
        path = free_paths.beside(nearest)
        if path is not None:
            paths.append(path)
            indices.append(index)
    table = exported.item_table
    if vectors:
        table = np.concatenate([table, np.stack(vectors)])
    trie = with_paths(exported.trie, paths, indices)
    cells = exported.cells_over(trie, table)
    return Build(exported.updated(catalogue, trie, table, cells), frozenset(indices))


class Assembly:
    """The changes since the export. Not thread-safe; what `live` returns is immutable.

    A new item keeps its index for the life of the process; when no source has it any more, it is not listed.

    Attributes:
        new: The new items by id, in the order of their indices.
        moved: New items that came, or got another place, since this was last emptied.
        likeness: Finds the places of new items.
    """

    def __init__(self, exported: Artifact, likeness: Likeness | None = None) -> None:
        """Begins with the export.

        Args:
            exported: The artefact as exported.
            likeness: Finds the places of new items.
        """
        self._exported = exported
        self._catalogue = exported.catalogue
        self.likeness = likeness or Likeness(exported)
        self.new: dict[str, NewItem] = {}
        self.moved: set[str] = set()
        self._indices: dict[str, int] = {}
        self._places: dict[int, Place] = {}
        self._hidden: set[int] = set()
        # Copied before a place changes: catalogues that are served keep the former ones.
        self._stand_in: dict[int, int] = {}
        self._placed_by: dict[int, By] = {}
        self._copied = False

    def apply(
        self, ids: Iterable[str], file: Updates, records: Mapping[str, StoredItem], now_ms: float | None = None
    ) -> None:
        """Takes over what some items are now.

        Args:
            ids: The items.
            file: The content of the updates file.
            records: What is stored of items.
            now_ms: The moment at which the windows of items count, in epoch milliseconds; None where they do not.
        """
        exported, changed, self._copied = self._exported.catalogue, dict[int, CatalogueItem](), False
        found = [merged(exported, item_id, file, records.get(item_id)) for item_id in ids]
        for one in found:  # before places are looked for: new items are placed among them
            if one.item.item_id in exported.index:
                self.likeness.know_vector(exported.index[one.item.item_id], one.item.vector)
        for one in found:
            index = exported.index.get(one.item.item_id)
            if index is None:
                index = self._place(one.item)
            if index is not None:
                changed[index] = one.item.item
                (self._hidden.add if one.hidden else self._hidden.discard)(index)
        self._catalogue = following(self._catalogue, changed, self._out_of_stock(), now_ms=now_ms)

    def turn(self, now_ms: float) -> None:
        """Takes over that windows have opened and closed."""
        self._catalogue = following(self._catalogue, {}, self._out_of_stock(), now_ms=now_ms)

    def live(self, built: Build) -> LiveCatalogue:
        """Returns the catalogue to serve.

        Args:
            built: The last build; new items that it lacks wait in the delta table.
        """
        waiting = [index for index in self._places if index not in built.placed]
        if len(waiting) > MOST_WAITING:
            log.warning("new_items_wait_for_the_rebuild", waiting=len(waiting), served=MOST_WAITING)
            waiting = waiting[:MOST_WAITING]
        delta = None
        if waiting:
            vectors: FloatArray = np.stack([self._places[index].vector for index in waiting])
            delta = DeltaTable(np.array(waiting, np.int64), vectors)
        parts = built.artifact
        artifact = self._exported.updated(self._catalogue, parts.trie, parts.item_table, parts.cells)
        return LiveCatalogue(artifact, delta, self._stand_in, self._placed_by)

    def _place(self, item: NewItem) -> int | None:
        """Gives a new item its place; returns its index, None if nothing known places it."""
        place = self.likeness.place(item)
        if place is None:
            return None
        index = self._indices.setdefault(item.item_id, self._catalogue.first_new + len(self._indices))
        self.new[item.item_id] = item
        if self._places.get(index) is not place:
            if not self._copied:
                self._stand_in, self._placed_by, self._copied = dict(self._stand_in), dict(self._placed_by), True
            self._places[index] = place
            self._stand_in[index], self._placed_by[index] = place.nearest, place.by
            self.moved.add(item.item_id)
        return index

    def _out_of_stock(self) -> IntArray:
        return np.fromiter(self._hidden, np.int64, len(self._hidden))


def assemble(
    exported: Artifact, built: Build, updates: Updates, likeness: Likeness, now_ms: float | None = None
) -> LiveCatalogue:
    """Puts together the catalogue of a file of updates.

    Args:
        exported: The artefact as exported.
        built: The last build, of the same new items or fewer.
        updates: The content of the file.
        likeness: Finds the exported items that a new one resembles.
        now_ms: As for `Assembly.apply`.
    """
    assembly = Assembly(exported, likeness)
    assembly.apply(dict.fromkeys((*updates.new, *updates.changed, *updates.out_of_stock)), updates, {}, now_ms)
    return assembly.live(built)
