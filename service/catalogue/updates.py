"""Keeps the served catalogue up to date: stock and new items, from the updates file to the engine's tables.

    poll     the file has changed → stock and the delta table of new items, immediately
    rebuild  new items → token paths, and a trie and an item table that contain them, in the background

Both end in a `LiveCatalogue` that is handed over as a whole. It is immutable and an index never changes its meaning, so
requests in flight finish with the catalogue they began with.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from service.artifact.array_types import FloatArray
from service.artifact.artifact import Artifact
from service.artifact.catalogue_item import PATH
from service.catalogue.new_item_paths import FreePaths, with_paths
from service.catalogue.updates_file import NOTHING, NewItem, Updates, UpdatesFile, parse
from service.common import logs
from service.common.disk_lane import HungFileError
from service.common.metrics import Metrics
from service.engine.decode.delta_table import MOST_WAITING, DeltaTable, like_vector
from service.engine.live_catalogue import LiveCatalogue

log = logs.get(__name__)

POLL_S = 2.0
# A large file is read, parsed and put in service within this time.
_PATIENCE_S = 60.0
REBUILD_EVERY_S = 30.0
# A timer may fire a little early by another clock.
_AFTER_S = 0.005
_FAULTS_LOGGED = 20


@dataclass(frozen=True, slots=True, eq=False)
class Build:
    """The artefact with the new items of one build in its trie and item table.

    Attributes:
        artifact: The artefact.
        known: The new items as the build saw them, by id.
        placed: Indices of the items that got a path.
    """

    artifact: Artifact
    known: Mapping[str, NewItem] = field(default_factory=dict)
    placed: frozenset[int] = frozenset()


class Likeness:
    """Finds the exported items that a new item resembles. Cached, because the mean of a category takes a while."""

    def __init__(self, exported: Artifact) -> None:
        self._exported = exported
        self._known: dict[tuple[tuple[str, ...], ...], tuple[FloatArray, int]] = {}

    def of(self, new: NewItem) -> tuple[FloatArray, int]:
        """Returns a new item's vector and its nearest exported item.

        Both come from the exported items it names in `like`, otherwise from its most specific known category or path,
        which is the one with the fewest items.

        Returns:
            The vector [d] float32, and the index of the exported item.
        """
        by = new.placed_by
        if by not in self._known:
            self._known[by] = self._of(new)
        return self._known[by]

    def _of(self, new: NewItem) -> tuple[FloatArray, int]:
        catalogue, table = self._exported.catalogue, self._exported.item_table
        if new.like:
            vector, _ = like_vector([catalogue.index[item_id] for item_id in new.like], table, named=True)
            return vector, catalogue.index[new.like[0]]
        values = (*new.item.facet(PATH), *new.item.category)
        known = [rows for value in values if len(rows := catalogue.with_category(value))]
        return like_vector(min(known, key=len), table, named=False)


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
    updated = catalogue.updated([item.item for item in new.values()], ())
    return Build(exported.updated(updated, trie, table), dict(new), frozenset(indices))


def assemble(
    exported: Artifact, built: Build, updates: Updates, likeness: Likeness, now_ms: float | None = None
) -> LiveCatalogue:
    """Puts together the catalogue to serve.

    Args:
        exported: The artefact as exported.
        built: The last build.
        updates: What differs from the export. The new items of the build come first, in its order; later ones wait in
            the delta table.
        likeness: Finds the exported items that a new one resembles.
        now_ms: The moment at which the windows of items count, in epoch milliseconds; None where they do not.
    """
    new, export = updates.new, exported.catalogue
    items = [item.item for item in new.values()]
    everything = export.updated(items, ())
    gone = sorted(everything.index[item_id] for item_id in updates.out_of_stock)
    places = {export.index[item_id]: fields for item_id, fields in updates.changed.items()}
    changed = {index: replace(export.item(index), **fields) for index, fields in places.items()}
    catalogue = export.updated(items, gone, changed=changed, now_ms=now_ms)
    like = {index: likeness.of(item) for index, item in enumerate(new.values(), start=catalogue.first_new)}
    waiting = [index for index in like if index not in built.placed]
    if len(waiting) > MOST_WAITING:
        log.warning("new_items_wait_for_the_rebuild", waiting=len(waiting), served=MOST_WAITING)
        waiting = waiting[:MOST_WAITING]
    delta = None
    if waiting:
        vectors: FloatArray = np.stack([like[index][0] for index in waiting])
        delta = DeltaTable(np.array(waiting, np.int64), vectors)
    artifact = exported.updated(catalogue, built.artifact.trie, built.artifact.item_table)
    return LiveCatalogue(artifact, delta, {index: nearest for index, (_, nearest) in like.items()})


class CatalogueUpdates:
    """Follows the updates file and the windows of items, and keeps the served catalogue up to date.

    A new item keeps its index for the life of the process; when it leaves the file, it goes out of stock.

    Args:
        exported: The artefact as exported.
        path: The updates file; None where there is none, and only windows open and close.
        serve: Puts a LiveCatalogue in service. It is called from worker threads, one call at a time, and may be slow.
        metrics: Shows whether the file hangs.
        rebuild_every_s: Shortest time between two rebuilds.
        clock: Monotonic seconds.
        wall_clock: Epoch seconds, by which windows open and close.
    """

    def __init__(
        self,
        exported: Artifact,
        path: Path | None,
        serve: Callable[[LiveCatalogue], None],
        *,
        metrics: Metrics | None = None,
        rebuild_every_s: float = REBUILD_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._exported, self._serve = exported, serve
        self._file = None if path is None else UpdatesFile(path)
        self._lane = (metrics or Metrics()).file_lane("catalogue_updates", _PATIENCE_S)
        self._rebuild_every_s, self._clock, self._wall_clock = rebuild_every_s, clock, wall_clock
        self._likeness = Likeness(exported)
        self._lock = threading.Lock()
        self._new: dict[str, NewItem] = {}
        self._updates = self._present = NOTHING
        self._next_change_ms: float | None = None
        self._built = Build(exported)
        self._last_build: float | None = None

    def poll(self) -> bool:
        """Puts the content of the file in service if it has changed. Reads the disk: not for the event loop.

        Returns:
            Whether the file had changed.

        Raises:
            OSError: the file cannot be read. The served catalogue stays as it is.
        """
        content = None if self._file is None else self._file.changed()
        if self._file is None or content is None:
            return False
        try:
            updates = parse(content, self._exported.catalogue, self._updates)
            self._report(self._file.path, updates)
            with self._lock:
                self._new.update(updates.new)
                removed = (item_id for item_id in self._new if item_id not in updates.new)
                self._present = replace(updates, new=self._new, out_of_stock={*updates.out_of_stock, *removed})
                self._hand_over()
                self._updates = updates
        except BaseException:
            self._file.forget()
            raise
        return True

    def turn(self) -> None:
        """Serves the catalogue of this moment: items whose window has opened are listed, those of others are not."""
        with self._lock:
            self._hand_over()

    @property
    def turned(self) -> bool:
        """Whether a window has opened or closed since the catalogue was handed over."""
        return self._next_change_ms is not None and self._wall_clock() * 1000.0 >= self._next_change_ms

    async def look(self) -> bool:
        """Polls in a thread. Raises HungFileError, which is an OSError, if the file does not answer."""
        return await self._lane.run(self.poll)

    @property
    def due(self) -> bool:
        """Whether new items wait for a build and the last build is long enough ago."""
        built = self._built.known
        if all(item_id in built and built[item_id].placed_by == item.placed_by for item_id, item in self._new.items()):
            return False
        return self._last_build is None or self._clock() - self._last_build >= self._rebuild_every_s

    def rebuild(self) -> None:
        """Adds the new items to the trie. Takes seconds for a million items, while the service keeps answering."""
        self._last_build = self._clock()
        with self._lock:
            new = dict(self._new)
        built = build(self._exported, new, self._likeness)
        with self._lock:
            self._built = built
            self._hand_over()
        log.info("catalogue_rebuilt", new_items=len(new), placed=len(built.placed))

    async def run(self, poll_s: float = POLL_S) -> None:
        """Polls until cancelled, with rebuilds running alongside. Failures are logged and tried again."""
        building: asyncio.Task[None] | None = None
        turning = asyncio.create_task(self._turn_windows(poll_s))  # not held up by a file that hangs
        try:
            while True:
                try:
                    await self.look()
                except HungFileError:
                    pass  # the lane has said so
                except Exception as error:
                    log.error("catalogue_updates_not_served", cause=str(error), **logs.where(error))
                if (building is None or building.done()) and self.due:
                    building = asyncio.create_task(self._rebuild_logged())
                await asyncio.sleep(poll_s)
        finally:
            turning.cancel()
            if building is not None:
                await asyncio.gather(building, return_exceptions=True)

    async def _turn_windows(self, poll_s: float) -> None:
        while True:
            await asyncio.sleep(min(poll_s, self._until_turned_s()))
            if self.turned:
                try:
                    await asyncio.to_thread(self.turn)
                except Exception as error:
                    log.error("catalogue_windows_not_served", **logs.where(error))
                    await asyncio.sleep(poll_s)

    async def _rebuild_logged(self) -> None:
        try:
            await asyncio.to_thread(self.rebuild)
        except Exception as error:
            log.error("catalogue_not_rebuilt", **logs.where(error))

    def _until_turned_s(self) -> float:
        """Seconds until a window opens or closes."""
        moment = self._next_change_ms
        return math.inf if moment is None else max(0.0, moment / 1000.0 - self._wall_clock()) + _AFTER_S

    def _hand_over(self) -> None:
        now_ms = self._wall_clock() * 1000.0
        live = assemble(self._exported, self._built, self._present, self._likeness, now_ms)
        self._serve(live)
        self._next_change_ms = live.artifact.catalogue.next_change_ms(now_ms)

    def _report(self, path: Path, updates: Updates) -> None:
        for fault in updates.faults[:_FAULTS_LOGGED]:
            log.warning("catalogue_update_skipped", file=str(path), line=fault.line, cause=fault.message)
        log.info(
            "catalogue_updates_read",
            new_items=len(updates.new),
            changed=len(updates.changed),
            out_of_stock=len(updates.out_of_stock),
            skipped=len(updates.faults),
        )
