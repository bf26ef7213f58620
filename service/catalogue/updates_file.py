"""Reads the catalogue updates file: one JSON object per line; the last line about an item wins.

    {"item_id": "50", "in_stock": false}
    {"item_id": "51", "price": 19.9, "valid_until": "2026-12-24T00:00:00Z"}
    {"item_id": "new-1", "title": "…", "category": ["Books > Crime"], "stock": 12, "like": ["50", "172"]}

The file describes how the catalogue differs from the exported one, and is read as a whole whenever it changes. A bad
line is reported with its number. The item it names stays as it was, unless another line says more about it. If nobody
can tell which item a line is about, every item that the file no longer names stays as it was. An incomplete last line
is still being written: it is treated in the same way, but is no fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem, path_of
from service.catalogue.item_fields import FIELDS, TEXT_MAX, fields_of
from service.common.watched_file import WatchedFile

_ID_MAX = 128
_FIELDS = {"item_id", "in_stock", "like", *FIELDS}
_FAULTS_MAX = 1000
_NAMED = re.compile(rb'"item_id"\s*:\s*("(?:[^"\\]|\\.){1,%d}")' % (4 * _ID_MAX))
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item that the export does not have.

    Attributes:
        item: The item.
        like: Ids of the exported items it resembles; empty when something else decides.
        vector: Its vector; empty without one.
        text: Its description.
    """

    item: CatalogueItem
    like: tuple[str, ...] = ()
    vector: tuple[float, ...] = ()
    text: str = ""

    @property
    def item_id(self) -> str:
        """Id of the item."""
        return self.item.item_id

    @property
    def placed_by(self) -> tuple[object, ...]:
        """What its place follows from; everything else of it may change without another place."""
        title = self.item.title if self.text or not (self.like or self.item.category) else None
        return self.like, self.vector, self.text, title, self.item.paths, self.item.category


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that was skipped: its number, from 1, and what is wrong with it."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Updates:
    """The content of the file.

    Attributes:
        new: New items by id, in the order of their first line.
        changed: Fields of `CatalogueItem` that exported items have other values of, by id.
        out_of_stock: Ids of the items that are out of stock.
        faults: The lines that were skipped.
    """

    new: Mapping[str, NewItem] = field(default_factory=dict)
    changed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    out_of_stock: Set[str] = frozenset()
    faults: tuple[Fault, ...] = ()


NOTHING = Updates()


def parse(content: bytes, exported: Catalogue, before: Updates = NOTHING) -> Updates:
    """Parses the content of an updates file.

    Args:
        content: The bytes of the file.
        exported: The exported catalogue, which the updates refer to.
        before: What the file said when it was last read; items of bad lines stay as they were then.
    """
    said = _Said()
    faults: list[Fault] = []
    unclear: set[str | None] = set()  # items of bad lines; None for a line that names none
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _row(line)
            said.apply(row, exported)
            unclear.discard(row["item_id"])
        except orjson.JSONDecodeError:
            # An incomplete last line is still being written, and so is what follows it.
            unclear.add(_named(line) if number < len(lines) else None)
            if number < len(lines):
                faults.append(Fault(number, "no JSON on this line; write one JSON object per line"))
        except ValueError as error:
            unclear.add(_named(line))
            faults.append(Fault(number, str(error)))
    said.keep(before, unclear)
    out_of_stock = frozenset(item_id for item_id, available in said.in_stock.items() if not available)
    return Updates(said.new, said.changed, out_of_stock, tuple(faults[:_FAULTS_MAX]))


def _named(line: bytes) -> str | None:
    """The item that a bad line names, if one can tell."""
    found = _NAMED.search(line)
    try:
        return str(orjson.loads(found.group(1))) if found else None
    except orjson.JSONDecodeError:
        return None


def _row(line: bytes) -> dict[str, Any]:
    row = orjson.loads(line)
    if not isinstance(row, dict):
        raise ValueError("no object on this line; write one JSON object per line")
    if unknown := set(row) - _FIELDS:
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
    item_id = row.get("item_id")
    if not isinstance(item_id, str) or not 0 < len(item_id) <= _ID_MAX or _CONTROL.search(item_id):
        raise ValueError(f"needs an item_id of 1 to {_ID_MAX} characters without control characters")
    if not isinstance(row.get("in_stock", True), bool):
        raise ValueError("in_stock must be true or false")
    like = row.get("like", [])
    if not isinstance(like, list) or not all(isinstance(v, str) and len(v) <= TEXT_MAX for v in like):
        raise ValueError(f"like is a list of texts of at most {TEXT_MAX} characters each")
    return row


@dataclass(slots=True)
class _Said:
    """What the lines so far say of each item."""

    new: dict[str, NewItem] = field(default_factory=dict)
    changed: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    in_stock: dict[str, bool] = field(default_factory=dict)

    def apply(self, row: Mapping[str, Any], exported: Catalogue) -> None:
        """Adds a line. Raises ValueError for one that cannot be used."""
        item_id, describes = row["item_id"], set(row) - {"item_id", "in_stock"}
        if describes:
            self._describe(row, exported)
        elif item_id not in exported.index and item_id not in self.new:
            raise ValueError("this item is neither exported nor described on an earlier line")
        if "in_stock" in row:
            self.in_stock[item_id] = row["in_stock"]
            if row["in_stock"] and "stock" not in row:
                self._restock(item_id, exported)
        elif describes:
            self.in_stock.pop(item_id, None)

    def _describe(self, row: Mapping[str, Any], exported: Catalogue) -> None:
        item_id = row["item_id"]
        if item_id not in exported.index:
            self.new[item_id] = _new_item(row, exported)
        elif "like" in row:
            raise ValueError("this is an exported item, which has a place of its own: leave out `like`")
        else:
            self.changed[item_id] = described(row, exported)

    def _restock(self, item_id: str, exported: Catalogue) -> None:
        """Forgets that no piece is left of an item that is said to be in stock."""
        if item_id in self.new:
            if self.new[item_id].item.stock == 0:
                self.new[item_id] = replace(self.new[item_id], item=replace(self.new[item_id].item, stock=None))
        elif exported.item(exported.index[item_id]).stock == 0:
            self.changed[item_id] = {**self.changed.get(item_id, {}), "stock": None}

    def keep(self, before: Updates, unclear: set[str | None]) -> None:
        """Leaves items of bad lines as they were, where the file says nothing else about them."""
        said = {*self.new, *self.changed, *self.in_stock}
        for item_id in dict.fromkeys((*before.new, *before.changed, *before.out_of_stock)):
            if item_id not in said and (None in unclear or item_id in unclear):
                if item_id in before.new:
                    self.new[item_id] = before.new[item_id]
                if item_id in before.changed:
                    self.changed[item_id] = before.changed[item_id]
                self.in_stock[item_id] = item_id not in before.out_of_stock


def described(row: Mapping[str, Any], exported: Catalogue) -> dict[str, Any]:
    """Returns the fields of `CatalogueItem` that a JSON object gives.

    A plain list of categories is a path where the catalogue knows it as one.

    Args:
        row: The object.
        exported: The exported catalogue.

    Raises:
        ValueError: A value cannot be used.
    """
    fields = fields_of(row)
    levels = fields.get("category", ())
    if not fields.get("paths") and len(levels) > 1 and exported.has_path(levels):
        fields["paths"] = (path_of(levels),)
    return fields


def _new_item(row: Mapping[str, Any], exported: Catalogue) -> NewItem:
    item = CatalogueItem(row["item_id"], **described(row, exported))
    like = tuple(item_id for item_id in row.get("like", ()) if item_id in exported.index)
    if not like and not any(len(exported.with_category(value)) for value in item.category):
        raise ValueError("nothing known to place this item by: list exported items in `like`, or give a known category")
    return NewItem(item, like)


class UpdatesFile:
    """Reads the file whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._watched = WatchedFile(path)

    def changed(self) -> bytes | None:
        """Returns the content if it has changed since the last call; None if not, or if there is no file.

        Raises:
            OSError: the file cannot be read. The next call tries again.
        """
        if not self._watched.changed():
            return None
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        self._watched.accept()
        return content

    def forget(self) -> None:
        """The content could not be used: the next call returns it again."""
        self._watched.forget()
