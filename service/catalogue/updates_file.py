"""The file of catalogue updates: one JSON object a line, the last word on an item wins.

    {"item_id": "50", "in_stock": false}
    {"item_id": "new-1", "title": "…", "category": ["Books", "Crime"], "like": ["50", "172"]}

It is read as a whole whenever it changes: it says how the catalogue differs from the exported one. A bad line is
reported with its number and skipped; a last line that is still being written waits for its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from service.artifact.catalogue import Catalogue, CatalogueItem

_ID_MAX = 128
_TEXT_MAX = 4096
_FIELDS = {"item_id", "in_stock", "title", "category", "brand", "attributes", "like"}
_FAULTS_MAX = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item the export does not know; `like` are ids of exported items, empty where its category speaks for it."""

    item: CatalogueItem
    like: tuple[str, ...] = ()

    @property
    def item_id(self) -> str:
        return self.item.item_id


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that was skipped."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Updates:
    """What the file says: new items in the order of their first line, ids that are out of stock, what was skipped."""

    new: Mapping[str, NewItem] = field(default_factory=dict)
    out_of_stock: frozenset[str] = frozenset()
    faults: tuple[Fault, ...] = ()


def parse(content: bytes, exported: Catalogue) -> Updates:
    """The updates in a file's content, against the exported catalogue."""
    new: dict[str, NewItem] = {}
    in_stock: dict[str, bool] = {}
    faults: list[Fault] = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _row(line)
            _apply(row, exported, new, in_stock)
        except orjson.JSONDecodeError:
            if number < len(lines):  # else its writer has not come to the end of it
                faults.append(Fault(number, "is no JSON"))
        except ValueError as error:
            faults.append(Fault(number, str(error)))
    gone = frozenset(item_id for item_id, there in in_stock.items() if not there)
    return Updates(new, gone, tuple(faults[:_FAULTS_MAX]))


def _row(line: bytes) -> dict[str, Any]:
    row = orjson.loads(line)
    if not isinstance(row, dict):
        raise ValueError("is no object")
    if unknown := set(row) - _FIELDS:
        raise ValueError(f"has unknown fields: {', '.join(sorted(unknown))}")
    item_id = row.get("item_id")
    if not isinstance(item_id, str) or not 0 < len(item_id) <= _ID_MAX or _CONTROL.search(item_id):
        raise ValueError(f"needs an item_id of 1 to {_ID_MAX} characters without control characters")
    if not isinstance(row.get("in_stock", True), bool):
        raise ValueError("in_stock is true or false")
    for name in ("title", "brand"):
        if not isinstance(row.get(name), str | None) or len(row.get(name) or "") > _TEXT_MAX:
            raise ValueError(f"{name} is a text of at most {_TEXT_MAX} characters")
    for name in ("category", "attributes", "like"):
        values = row.get(name, [])
        if not isinstance(values, list) or not all(isinstance(v, str) and len(v) <= _TEXT_MAX for v in values):
            raise ValueError(f"{name} is a list of texts")
    return row


def _apply(row: Mapping[str, Any], exported: Catalogue, new: dict[str, NewItem], in_stock: dict[str, bool]) -> None:
    item_id, describes = row["item_id"], set(row) - {"item_id", "in_stock"}
    if describes:
        if item_id in exported.index:
            raise ValueError("is an exported item: only its stock can be changed before the next export")
        new[item_id] = _new_item(row, exported)
    elif item_id not in exported.index and item_id not in new:
        raise ValueError("is about an item that is neither exported nor described before")
    if "in_stock" in row:
        in_stock[item_id] = row["in_stock"]
    elif describes:
        in_stock.pop(item_id, None)


def _new_item(row: Mapping[str, Any], exported: Catalogue) -> NewItem:
    category = tuple(row.get("category", ()))
    item = CatalogueItem(row["item_id"], row.get("title"), category, row.get("brand"), tuple(row.get("attributes", ())))
    like = tuple(other for other in row.get("like", ()) if other in exported.index)
    if not like and not any(len(exported.with_category(value)) for value in category):
        raise ValueError("says nothing known of what it is like: name exported items in `like`, or a known category")
    return NewItem(item, like)


class UpdatesFile:
    """Follows the file by its size and time of change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None

    def changed(self) -> bytes | None:
        """The content, where it is another than at the last call; None too where there is no file.

        Raises OSError where it cannot be read; the next call tries again.
        """
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if stamp == self._stamp:
            return None
        # The stamp is older than the content: what is written in between is read again.
        content = self.path.read_bytes()
        self._stamp = stamp
        return content

    def forget(self) -> None:
        """The content could not be used: it is given again at the next call."""
        self._stamp = None
