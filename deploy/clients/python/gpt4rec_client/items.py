"""The catalogue, for backends: `client.items`. The key needs the right `items`; reading needs none."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Protocol, TypeVar

from gpt4rec_client import item_calls as calls
from gpt4rec_client.item_calls import ImportedLine, Item, ItemChange, ItemFields, ItemLine, ItemPage
from gpt4rec_client.questions import Call

T = TypeVar("T")


class Do(Protocol):
    """Makes a call."""

    def __call__(self, call: Call[T], /) -> T:
        """Returns the answer."""


class DoAsync(Protocol):
    """Makes a call."""

    def __call__(self, call: Call[T], /) -> Awaitable[T]:
        """Returns the answer."""


class Items:
    """The catalogue. A change is written when its call returns, and lists of every replica have it soon after.

    With `if_version` a change is made only if the item has this version (0: nothing is stored), else `Conflict` is
    raised; so it is after a further try of a change whose answer was lost.
    """

    def __init__(self, do: Do) -> None:
        self._do = do

    def put(self, item_id: str, fields: ItemFields, *, if_version: int | None = None) -> ItemChange:
        """Stores an item in place of what was stored of it."""
        return self._do(calls.put(item_id, fields, if_version))

    def patch(self, item_id: str, fields: ItemFields, *, if_version: int | None = None) -> ItemChange:
        """Stores some fields of an item; None takes one away, so that the other sources show again."""
        return self._do(calls.patch(item_id, fields, if_version))

    def delete(self, item_id: str, *, if_version: int | None = None) -> ItemChange:
        """Deletes what is stored of an item, so that the other sources show again."""
        return self._do(calls.delete(item_id, if_version))

    def disable(self, item_id: str) -> ItemChange:
        """Takes an item out of all lists until it is enabled."""
        return self._do(calls.disable(item_id))

    def enable(self, item_id: str) -> ItemChange:
        """Lets an item back into lists that was disabled."""
        return self._do(calls.enable(item_id))

    def get(self, item_id: str) -> Item:
        """Returns an item as lists have it."""
        return self._do(calls.get(item_id))

    def page(self, cursor: str | None = None, *, limit: int = 50, listed: bool = False) -> ItemPage:
        """Returns a page of all items; `listed` shows only those that lists may have."""
        return self._do(calls.page(cursor, limit, listed=listed))

    def search(self, words: str, *, limit: int = 50, listed: bool = False) -> tuple[Item, ...]:
        """Returns items by words of their titles, the best first. The last word may be incomplete; typos are found."""
        return self._do(calls.search(words, limit, listed=listed)).items

    def import_lines(self, lines: Iterable[ItemLine]) -> list[ImportedLine]:
        """Makes many changes, in requests of bounded size, and reports on each line. A bad line harms no other."""
        return [line for call in calls.imports(lines) for line in self._do(call)]


class AsyncItems:
    """The catalogue, as `Items`, to be awaited."""

    def __init__(self, do: DoAsync) -> None:
        self._do = do

    async def put(self, item_id: str, fields: ItemFields, *, if_version: int | None = None) -> ItemChange:
        """Stores an item in place of what was stored of it."""
        return await self._do(calls.put(item_id, fields, if_version))

    async def patch(self, item_id: str, fields: ItemFields, *, if_version: int | None = None) -> ItemChange:
        """Stores some fields of an item; None takes one away, so that the other sources show again."""
        return await self._do(calls.patch(item_id, fields, if_version))

    async def delete(self, item_id: str, *, if_version: int | None = None) -> ItemChange:
        """Deletes what is stored of an item, so that the other sources show again."""
        return await self._do(calls.delete(item_id, if_version))

    async def disable(self, item_id: str) -> ItemChange:
        """Takes an item out of all lists until it is enabled."""
        return await self._do(calls.disable(item_id))

    async def enable(self, item_id: str) -> ItemChange:
        """Lets an item back into lists that was disabled."""
        return await self._do(calls.enable(item_id))

    async def get(self, item_id: str) -> Item:
        """Returns an item as lists have it."""
        return await self._do(calls.get(item_id))

    async def page(self, cursor: str | None = None, *, limit: int = 50, listed: bool = False) -> ItemPage:
        """Returns a page of all items; `listed` shows only those that lists may have."""
        return await self._do(calls.page(cursor, limit, listed=listed))

    async def search(self, words: str, *, limit: int = 50, listed: bool = False) -> tuple[Item, ...]:
        """Returns items by words of their titles, the best first. The last word may be incomplete; typos are found."""
        return (await self._do(calls.search(words, limit, listed=listed))).items

    async def import_lines(self, lines: Iterable[ItemLine]) -> list[ImportedLine]:
        """Makes many changes, in requests of bounded size, and reports on each line. A bad line harms no other."""
        return [line for call in calls.imports(lines) for line in await self._do(call)]
