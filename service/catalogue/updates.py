"""Keeps the served catalogue up to date: from the stored items and the updates file to the engine's tables.

    follow   items were stored or changed over HTTP → the same, some at a time
    poll     the file has changed → stock and the delta table of new items, immediately
    rebuild  new items → token paths, and a trie and an item table that contain them, in the background

All end in a `LiveCatalogue` that is handed over as a whole. It is immutable and an index never changes its meaning, so
requests in flight finish with the catalogue they began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from service.artifact.artifact import Artifact
from service.catalogue.assembly import Assembly, Build, build
from service.catalogue.live_items import LiveItems
from service.catalogue.merging import differing
from service.catalogue.updates_file import NOTHING, Updates, UpdatesFile, parse
from service.common import logs
from service.engine.decode.delta_table import MOST_WAITING
from service.engine.live_catalogue import LiveCatalogue
from service.metrics.service_metrics import Metrics
from service.process.disk_lane import HungFileError

log = logs.get(__name__)

POLL_S = 2.0
# A large file is read, parsed and put in service within this time.
_PATIENCE_S = 60.0
REBUILD_EVERY_S = 30.0
# With many new items waiting, a rebuild does not wait that long.
_REBUILD_SOON_S, _MANY = 5.0, MOST_WAITING // 2
# Changes of stored items that come one after the other are handed over together, so often, and this many times less
# often than a hand-over takes: each one drops what was computed for the catalogue before. A new item must show within
# five seconds; a disabled one must be gone within one, so it hardly waits.
_GATHER_S, _GATHER_SHARE, _GATHER_MAX_S = 1.0, 3.0, 2.0
_LEAST_GATHER_S = 0.2
# A timer may fire a little early by another clock.
_AFTER_S = 0.005
_FAULTS_LOGGED = 20


class CatalogueUpdates:
    """Follows the stored items, the updates file and the windows of items, and keeps the served catalogue up to date.

    A new item keeps its index for the life of the process; when no source has it any more, it goes out of stock.

    Args:
        exported: The artefact as exported.
        path: The updates file; None where there is none.
        serve: Puts a LiveCatalogue in service. It is called from worker threads, one call at a time, and may be slow.
        live: The items that are stored over HTTP; None where there are none.
        metrics: Shows whether the file hangs, and how late changes of stored items are.
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
        live: LiveItems | None = None,
        metrics: Metrics | None = None,
        rebuild_every_s: float = REBUILD_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._exported, self._serve = exported, serve
        self._file = None if path is None else UpdatesFile(path)
        self._metrics = metrics or Metrics()
        self._lane = self._metrics.file_lane("catalogue_updates", _PATIENCE_S)
        self._rebuild_every_s, self._clock, self._wall_clock = rebuild_every_s, clock, wall_clock
        self._assembly = Assembly(exported)
        self._lock = threading.Lock()
        self._live = live
        self._pending: set[str] = set()
        self._live_changed, self._urgent = asyncio.Event(), asyncio.Event()
        self._updates = NOTHING
        self._served_ms = 0.0
        self._next_change_ms: float | None = None
        self._unsubscribe: Callable[[], None] | None = None
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
                differ = differing(self._updates, updates)
                # In the order of the file: new items get their indices in this order.
                self._apply(
                    [item_id for item_id in dict.fromkeys((*updates.new, *differ)) if item_id in differ], updates
                )
                self._hand_over()
                self._updates = updates
        except BaseException:
            self._file.forget()
            raise
        return True

    def turn(self) -> None:
        """Serves the catalogue of this moment: items whose window has opened are listed, those of others are not."""
        with self._lock:
            self._assembly.turn(self._moment())
            self._hand_over()

    def follow(self, ids: Collection[str]) -> None:
        """Puts in service what is stored of some items now. Takes a while: not for the event loop.

        Args:
            ids: The items that have changed.
        """
        with self._lock:
            self._apply(ids, self._updates)
            self._hand_over()
        records, now = {} if self._live is None else self._live.records, self._wall_clock()
        for item_id in ids:
            if (record := records.get(item_id)) is not None:
                self._metrics.catalogue.item_delay.observe(max(0.0, now - record.version / 1e6))

    @property
    def turned(self) -> bool:
        """Whether a window has opened or closed since the catalogue was handed over."""
        return self._next_change_ms is not None and self._wall_clock() * 1000.0 >= self._next_change_ms

    async def look(self) -> bool:
        """Polls in a thread. Raises HungFileError, which is an OSError, if the file does not answer."""
        return self._file is not None and await self._lane.run(self.poll)

    @property
    def due(self) -> bool:
        """Whether new items wait for a build and the last build is long enough ago."""
        moved, last = len(self._assembly.moved), self._last_build
        if not moved or last is None:
            return bool(moved)
        pause_s = min(_REBUILD_SOON_S, self._rebuild_every_s) if moved > _MANY else self._rebuild_every_s
        return self._clock() - last >= pause_s

    def rebuild(self) -> None:
        """Adds the new items to the trie. Takes seconds for a million items, while the service keeps answering."""
        self._last_build = self._clock()
        with self._lock:
            new, moved = dict(self._assembly.new), self._assembly.moved
            self._assembly.moved = set()
        try:
            built = build(self._exported, new, self._assembly.likeness)
            with self._lock:
                self._built = built
                self._hand_over()
        except BaseException:
            self._assembly.moved |= moved
            raise
        log.info("catalogue_rebuilt", new_items=len(new), placed=len(built.placed))

    async def run(self, poll_s: float = POLL_S) -> None:
        """Polls until cancelled, with rebuilds running alongside. Failures are logged and tried again."""
        building: asyncio.Task[None] | None = None
        self._subscribe()
        # Not held up by a file that hangs.
        others = [asyncio.create_task(self._turn_windows(poll_s)), asyncio.create_task(self._follow_live())]
        try:
            while True:
                try:
                    if self._file is not None:
                        await self.look()
                except HungFileError:
                    pass  # the lane has said so
                except Exception as error:
                    log.error("catalogue_updates_not_served", cause=str(error), **logs.where(error))
                if (building is None or building.done()) and self.due:
                    building = asyncio.create_task(self._rebuild_logged())
                await asyncio.sleep(poll_s)
        finally:
            if self._unsubscribe is not None:
                self._unsubscribe()
                self._unsubscribe = None
            for task in others:
                task.cancel()
            if building is not None:
                await asyncio.gather(building, return_exceptions=True)

    async def begin(self) -> None:
        """Puts in service what is stored of items; what changes from now on waits for `run`."""
        self._subscribe()
        if self._live is not None and self._live.records:
            await asyncio.to_thread(self.follow, list(self._live.records))

    def _subscribe(self) -> None:
        if self._live is not None and self._unsubscribe is None:
            self._unsubscribe = self._live.subscribe(self._items_changed)

    def _items_changed(self, ids: Collection[str]) -> None:
        self._pending.update(ids)
        self._live_changed.set()
        records = {} if self._live is None else self._live.records
        if any((record := records.get(item_id)) is not None and record.disabled for item_id in ids):
            self._urgent.set()

    async def _follow_live(self) -> None:
        """Hands over what has changed: the first change at once, those that come soon after it together."""
        while True:
            await self._live_changed.wait()
            self._live_changed.clear()
            self._urgent.clear()
            ids, self._pending = self._pending, set()
            began = self._clock()
            try:
                await asyncio.to_thread(self.follow, ids)
            except Exception as error:
                log.error("stored_items_not_served", cause=str(error), **logs.where(error))
                self._items_changed(ids)
            await asyncio.sleep(_LEAST_GATHER_S)
            pause_s = _GATHER_SHARE * (self._clock() - began)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(_GATHER_S, pause_s), _GATHER_MAX_S)):
                    await self._urgent.wait()

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

    def _apply(self, ids: Collection[str], file: Updates) -> None:
        records = {} if self._live is None else self._live.records
        self._assembly.apply(ids, file, records, self._moment())

    def _hand_over(self) -> None:
        live = self._assembly.live(self._built)
        self._serve(live)
        self._next_change_ms = live.artifact.catalogue.next_change_ms(self._served_ms)

    def _moment(self) -> float:
        """Epoch milliseconds; windows that open or close after this are of the next hand-over."""
        self._served_ms = self._wall_clock() * 1000.0
        return self._served_ms

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
