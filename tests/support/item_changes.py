"""Stored items in memory, as the copies of the replicas read them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import orjson

from service.common.errors import StoreUnavailable
from service.store.items import PAGE, ItemChanges


class ItemsInMemory:
    """The part of `service.store.items.ItemStore` that is read; changes are made by `put` and `delete`."""

    def __init__(self) -> None:
        self.epoch, self.floor, self.away = "1", 0, False
        self.reads = 0
        self._revision = 0
        self._items: dict[str, tuple[int, bytes]] = {}

    def put(self, item_id: str, *, disabled: bool = False, **fields: Any) -> None:
        self._revision += 1
        packed = b"1 %d %d alice %s" % (self._revision, disabled, orjson.dumps(fields))
        self._items[item_id] = self._revision, packed

    def delete(self, item_id: str, *, forgotten: bool = False) -> None:
        self._revision += 1
        self._items[item_id] = self._revision, b""
        if forgotten:
            del self._items[item_id]
            self.floor = self._revision

    def lose_everything(self) -> None:
        self.epoch += "1"
        self._revision, self._items = 0, {}

    async def changes(self, since: int, most: int = PAGE) -> ItemChanges:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        new = sorted(
            (version, item_id, packed) for item_id, (version, packed) in self._items.items() if version > since
        )
        page, count = new[:most], sum(bool(packed) for _, packed in self._items.values())
        ids, versions, packed = [row[1] for row in page], [row[0] for row in page], [row[2] for row in page]
        return ItemChanges(self.epoch, self._revision, self.floor, count, ids, versions, packed)

    async def announcements(self) -> AsyncGenerator[bytes, None]:
        raise StoreUnavailable("nothing is announced")
        yield b""
