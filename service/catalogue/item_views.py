"""Items as routes show them: one, a page of all, and those that a search finds."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import orjson

from service.artifact.array_types import BoolArray
from service.artifact.features import Vocabulary
from service.artifact.items.catalogue_item import CatalogueItem, steps_of
from service.catalogue.item_fields import FIELDS
from service.catalogue.live_items import LiveItems
from service.catalogue.search import ItemSearch, Searched
from service.catalogue.shop_items import Change
from service.common.answer_warnings import Warnings
from service.common.errors import StoreUnavailable
from service.common.request_errors import InvalidRequest, NotFound
from service.common.times import iso_of
from service.store.items import LOG_MAX, ItemStore, StoredItem

_CURSOR_FORMAT = 1
# Items that a page looks at: most may be unlisted, or stored ones that pages before have shown.
_LOOKED_AT_MAX = 10_000
_AWAY = "Redis cannot be used: this is what this replica last knew"


class Served(Searched, Protocol):
    """The part of `service.lifecycle.served_model.ServedModel` that the views need."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The index of every item."""
        ...

    @property
    def in_stock(self) -> BoolArray | None:
        """Which items may be listed; None for all."""
        ...

    @property
    def placed_by(self) -> Mapping[int, str]:
        """What gave the items that came after the export their places."""
        ...


class ItemViews:
    """Shows items: stored fields before those of the catalogue."""

    def __init__(self, store: ItemStore, live: LiveItems, search: ItemSearch, served: Callable[[], Served]) -> None:
        """Reads from these.

        Args:
            store: Redis, for the record of one item.
            live: The copy of the records here, for many.
            search: Finds items.
            served: Returns the model in service.
        """
        self._store, self._live, self._search, self._served = store, live, search, served

    async def show(self, item_id: str) -> dict[str, Any]:
        """Returns one item. What is stored of it is read from Redis, so a change shows at once on every replica.

        Raises:
            NotFound: Neither is anything stored of it, nor is it in the catalogue.
        """
        warnings = []
        try:
            record = (await self._store.read([item_id]))[0]
        except StoreUnavailable:
            record, warnings = self._live.records.get(item_id), [_AWAY]
        served = self._served()
        if record is None and (item_id not in served.vocabulary.item_index or _gone(item_id, served)):
            raise NotFound("no item with this id is stored or in the catalogue")
        stored = None if record is None else dict(record.fields)
        return {**_view(item_id, record, served), "stored": stored, "warnings": warnings}

    def page(self, cursor: str | None, limit: int, *, listed: bool = False) -> dict[str, Any]:
        """Returns a page of all items: the stored ones by id, then the others in the order of the catalogue.

        An item that is stored or deleted while somebody pages may be missed or come twice; no other is.

        Args:
            cursor: Where the page begins; None for the first.
            limit: Most items.
            listed: Whether only items are shown that lists may have.

        Raises:
            InvalidRequest: The cursor is none of ours, or the catalogue it led into is no longer served.
        """
        served = self._served()
        after, place = _place(cursor, served.version)
        views: list[dict[str, Any]] = []
        looked_at = 0
        for item_id in self._live.ids_after(after) if after is not None else ():
            if len(views) == limit or looked_at == _LOOKED_AT_MAX:
                return _page(views, [_CURSOR_FORMAT, after, None, served.version])
            record, after, looked_at = self._live.records[item_id], item_id, looked_at + 1
            if not listed or _listed(item_id, record, served):
                views.append(_view(item_id, record, served))
        ids, end = served.catalogue.item_ids, place + _LOOKED_AT_MAX - looked_at
        for item in range(place, min(end, len(ids))):
            if len(views) == limit:
                return _page(views, [_CURSOR_FORMAT, None, item, served.version])
            item_id = ids[item]
            if not item_id or item_id in self._live.records or _gone(item_id, served):
                continue
            if not listed or _listed(item_id, None, served):
                views.append(_view(item_id, None, served))
        return _page(views, [_CURSOR_FORMAT, None, end, served.version] if end < len(ids) else None)

    async def search(self, query: str, limit: int, *, listed: bool = False) -> dict[str, Any]:
        """Returns the items that match a query, the best first; one with exactly this id is the first of all.

        Args:
            query: Words of titles.
            limit: Most items.
            listed: Whether only items are shown that lists may have.
        """
        served = self._served()
        found = await self._search.find(query, served, 2 * limit if listed else limit)
        asked = query.strip()
        if asked in self._live.records or asked in served.vocabulary.item_index:
            found = [asked, *(item_id for item_id in found if item_id != asked)]
        records = self._live.records
        found = [item_id for item_id in found if item_id in records or not _gone(item_id, served)]
        views = [_view(item_id, records.get(item_id), served) for item_id in found]
        return _page([view for view in views if view["listed"] or not listed][:limit], None)

    async def changes(self, item_id: str | None, limit: int) -> list[dict[str, Any]]:
        """Returns the newest changes of one item or of all, newest first.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        entries = await self._store.log(LOG_MAX if item_id is not None else limit)
        own = (entry for entry in entries if item_id is None or entry.get("item_id") == item_id)
        return [{"fields": None, **entry, "at": iso_of(int(entry["version"]) // 1000)} for entry in islice(own, limit)]

    def warnings(self, change: Change) -> list[str]:
        """Returns what in a change has not the effect that its sender may expect, in sentences."""
        warnings, served = Warnings(), self._served()
        index = served.vocabulary.item_index
        if change.op in ("put", "patch") and change.item_id not in index:
            like = change.fields.get("like") or ()
            warnings.unless_empty(
                "the catalogue does not have these items of `like`", (i for i in like if i not in index)
            )
            if change.op == "put" and not _has_a_place(change.fields, served, self._live.records):
                warnings.texts.append(
                    "nothing known places this item, so no list has it: name items of the catalogue in `like`, or give "
                    "a known category, a title or a text"
                )
        if change.op == "disable" and change.item_id not in index and change.item_id not in self._live.records:
            warnings.texts.append("no item with this id is known here yet")
        return warnings.texts


def _has_a_place(fields: Mapping[str, Any], served: Served, records: Mapping[str, StoredItem]) -> bool:
    known = any(item_id in served.vocabulary.item_index for item_id in fields.get("like") or ())
    return (
        known
        or any(fields.get(name) for name in ("text", "title"))
        or any(
            served.catalogue.has_value("category", step)
            for value in fields.get("category") or ()
            for step in (steps_of(value) if isinstance(value, str) else value)
        )
        or _fits(fields.get("vector") or (), served, records)
    )


def _fits(vector: Sequence[float], served: Served, records: Mapping[str, StoredItem]) -> bool:
    """Whether an exported item has a stored vector that a vector is like, as `service.catalogue.placing` compares."""
    if not any(vector):
        return False
    index, asked = served.vocabulary.item_index, np.asarray(vector, np.float64)
    for record in islice(records.values(), _LOOKED_AT_MAX):
        stored, item = record.fields.get("vector") or (), index.get(record.item_id)
        exported = item is not None and item not in served.placed_by
        if exported and len(stored) == len(vector) and float(asked @ np.asarray(stored, np.float64)) > 0.0:
            return True
    return len(records) > _LOOKED_AT_MAX  # others may be like it: no warning that may be wrong


def _listed(item_id: str, record: StoredItem | None, served: Served) -> bool:
    index = served.vocabulary.item_index.get(item_id)
    may = index is not None and (served.in_stock is None or bool(served.in_stock[index]))
    return may and not (record is not None and record.disabled)


def _view(item_id: str, record: StoredItem | None, served: Served) -> dict[str, Any]:
    index = served.vocabulary.item_index.get(item_id)
    item = {} if index is None else shown_fields(served.catalogue.items[index])
    if record is not None:
        item |= {name: value for name, value in record.fields.items() if name in FIELDS}
    return {
        "item_id": item_id,
        "item": item,
        "version": None if record is None else record.version,
        "changed_at": None if record is None else iso_of(record.version // 1000),
        "disabled": record is not None and record.disabled,
        "listed": _listed(item_id, record, served),
        "placed_by": None if index is None else served.placed_by.get(index, "export"),
    }


def _gone(item_id: str, served: Served) -> bool:
    """Whether an item of which nothing is stored is only what is left of one that was deleted.

    It keeps its index in the catalogue for as long as the process runs, without fields, and no list has it.
    """
    index = served.vocabulary.item_index.get(item_id)
    if index is None or index not in served.placed_by or shown_fields(served.catalogue.items[index]):
        return False
    return not _listed(item_id, None, served)


def shown_fields(item: CatalogueItem) -> dict[str, Any]:
    """Returns the fields of an item as callers write them, those that it has."""
    steps = {step for path in item.paths for step in steps_of(path)}
    times = {"valid_from": item.valid_from_ms, "valid_until": item.valid_until_ms}
    fields: dict[str, Any] = {
        "title": item.title,
        "category": [*item.paths, *(name for name in item.category if name not in steps)],
        "brand": item.brand,
        "price": item.price,
        "currency": item.currency,
        "stock": item.stock,
        "image": item.image,
        "url": item.url,
        "attributes": list(item.attributes),
        **{name: None if moment is None else iso_of(moment) for name, moment in times.items()},
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _page(views: Sequence[dict[str, Any]], cursor: list[Any] | None) -> dict[str, Any]:
    text = None if cursor is None else base64.urlsafe_b64encode(orjson.dumps(cursor)).decode().rstrip("=")
    return {"items": views, "cursor": text, "warnings": []}


def _place(cursor: str | None, version: str) -> tuple[str | None, int]:
    """Returns the stored item after which a page begins, None behind all of them, and its place in the catalogue."""
    if cursor is None:
        return "", 0
    try:
        number, after, place, of = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if number != _CURSOR_FORMAT or not isinstance(of, str):
            raise ValueError
        if after is not None:
            return str(after), 0
        place = int(place)
    except (ValueError, TypeError):
        raise _no_cursor("this is no cursor of a page of items") from None
    if of != version or place < 0:
        raise _no_cursor("another model is served since: begin with the first page")
    return None, place


def _no_cursor(message: str) -> InvalidRequest:
    return InvalidRequest(message, [{"loc": ["query", "cursor"], "message": message, "type": "cursor"}])
