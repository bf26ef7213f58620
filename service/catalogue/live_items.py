"""The stored items as this process has them: a copy of what Redis holds, kept current by what has changed.

A message announces every change, and a poll finds what a message missed. Only the items that changed are read. Whoever
serves a catalogue subscribes, and learns which items are another's now.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from service.catalogue.item_copy import ItemCopy
from service.common import logs
from service.common.errors import StoreUnavailable
from service.common.poll_and_listen import poll_and_listen
from service.metrics.service_metrics import Metrics
from service.store.items import PAGE, ItemChanges, StoredItem

log = logs.get(__name__)

POLL_S = 0.5
# After a failed look the next one comes sooner, after this share of the pause.
_RETRY_SHARE = 0.5
_ANEW_EVERY_S = 60.0
_FEW = 100
_KEEP_EVERY_S = 5.0

Observer = Callable[[Collection[str]], None]


class ChangesStore(Protocol):
    """The part of `service.store.items.ItemStore` that the copy needs."""

    async def changes(self, since: int, most: int = PAGE) -> ItemChanges:
        """Returns what has changed after a revision, the oldest first. Raises StoreUnavailable."""
        ...

    def announcements(self) -> AsyncGenerator[bytes, None]:
        """Yields a message after every change; may miss some. Raises StoreUnavailable."""
        ...


class LiveItems:
    """The stored items by id. They are read and changed on the event loop; a mapping may be read in any thread.

    Attributes:
        records: The records.
        ids: Their ids, sorted.
        revision: The newest change that they contain.
    """

    def __init__(
        self, store: ChangesStore, metrics: Metrics, *, poll_s: float = POLL_S, copy: Path | None = None
    ) -> None:
        """Begins without any.

        Args:
            store: Redis.
            metrics: Shows how many there are.
            poll_s: Pause between two looks without a message, in seconds.
            copy: File that keeps the items for a start without Redis.
        """
        self._store, self._metrics, self._poll_s = store, metrics, poll_s
        self.records: dict[str, StoredItem] = {}
        self.ids: list[str] = []
        self.revision = 0
        self._epoch = ""
        self._anew_at = -math.inf
        self._copy, self._saved = copy, 0
        self._observers: list[Observer] = []

    async def begin(self) -> None:
        """Reads the stored items; without Redis, as they were when this machine last wrote them down."""
        try:
            await self.once()
        except StoreUnavailable:
            kept = None if self._copy is None else await asyncio.to_thread(ItemCopy.load, self._copy)
            if kept is not None and not self.records:
                self._epoch, self.revision = kept.epoch, kept.revision
                self._take_over({record.item_id: record for record in kept.records})
                log.warning("stored_items_from_copy", items=len(self.records))

    async def keep(self) -> None:
        """Writes down what has changed since it was last written down."""
        if self._copy is None or self._saved == self.revision:
            return
        found = ItemCopy(self._epoch, self.revision, list(self.records.values()))
        try:
            await asyncio.to_thread(found.save, self._copy)
            self._saved = found.revision
        except OSError as error:
            log.warning("stored_items_not_kept", cause=type(error).__name__)

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """Calls `observer` on the event loop with the ids of the items that changed. Returns what ends that."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    async def once(self) -> bool:
        """Reads what has changed, and tells the observers.

        Returns:
            Whether anything had.

        Raises:
            StoreUnavailable: Redis does not answer. What was read before it fell silent counts.
        """
        changed = False
        while True:
            page = await self._store.changes(self.revision)
            if self._is_another(page):
                return await self._anew() or changed
            if page.ids:
                self._epoch = page.epoch
                self._take_over(await asyncio.to_thread(_unpacked, page))
                self.revision, changed = page.versions[-1], True
            if len(page.ids) < PAGE:
                if page.count != len(self.records) and self._may_read_anew():
                    log.warning("stored_items_differ", here=len(self.records), stored=page.count)
                    return await self._anew() or changed
                return changed

    def _may_read_anew(self) -> bool:
        """Returns whether it is long enough ago: a record that this release cannot read is no reason to go on."""
        return asyncio.get_running_loop().time() - self._anew_at > _ANEW_EVERY_S

    def _is_another(self, page: ItemChanges) -> bool:
        """Returns whether what is known does not lead to what is stored."""
        if self.revision == 0:
            return False
        return page.epoch != self._epoch or page.revision < self.revision or self.revision < page.floor

    async def _anew(self) -> bool:
        """Reads everything, and tells the observers what differs."""
        self._anew_at = asyncio.get_running_loop().time()
        found: dict[str, StoredItem] = {}
        since, page = 0, None
        while page is None or len(page.ids) == PAGE:
            page = await self._store.changes(since)
            for item_id, record in (await asyncio.to_thread(_unpacked, page)).items():
                if record is None:
                    found.pop(item_id, None)
                else:
                    found[item_id] = record
            since = page.versions[-1] if page.versions else since
        self._epoch, self.revision = page.epoch, since
        before = self.records
        differ = {item_id for item_id in before.keys() | found.keys() if before.get(item_id) != found.get(item_id)}
        log.info("stored_items_read_anew", items=len(found), changed=len(differ))
        self._take_over({item_id: found.get(item_id) for item_id in differ})
        return bool(differ)

    def _take_over(self, changes: Mapping[str, StoredItem | None]) -> None:
        new = [item_id for item_id, record in changes.items() if record and item_id not in self.records]
        gone = {item_id for item_id, record in changes.items() if record is None} & self.records.keys()
        for item_id, record in changes.items():
            if record is None:
                self.records.pop(item_id, None)
            else:
                self.records[item_id] = record
        self._sort(new, gone)
        self._metrics.catalogue.items_stored.set(len(self.records))
        if changes:
            for observer in tuple(self._observers):
                observer(changes.keys())

    def ids_after(self, item_id: str) -> Iterator[str]:
        """Yields the ids that come after one, in order; all of them after ""."""
        ids = self.ids
        return (ids[place] for place in range(bisect_right(ids, item_id), len(ids)))

    def _sort(self, new: list[str], gone: set[str]) -> None:
        """Keeps the sorted ids: one by one where few change, all anew where many do."""
        if len(new) + len(gone) > _FEW:
            self.ids = sorted(self.records)
            return
        for item_id in new:
            insort(self.ids, item_id)
        for item_id in gone:
            del self.ids[bisect_left(self.ids, item_id)]

    async def run(self) -> None:
        """Keeps the copy current until cancelled."""
        async with asyncio.TaskGroup() as group:
            news = self._store.announcements
            group.create_task(poll_and_listen(self.once, news, poll_s=self._poll_s, retry_share=_RETRY_SHARE))
            group.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_EVERY_S)
            await self.keep()


def _unpacked(page: ItemChanges) -> dict[str, StoredItem | None]:
    """Returns the records of a page by id; None for a deleted item, and for one that cannot be read here."""
    return {item_id: StoredItem.unpack(item_id, packed) for item_id, packed in zip(page.ids, page.packed, strict=True)}
