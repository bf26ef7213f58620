"""The calls that change and show the catalogue, and how their answers are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Required, TypedDict
from urllib.parse import quote

from gpt4rec_client.questions import Call

# Of one request: bodies of services are bounded by their size, too.
LINES_MAX, LINES_BYTES_MAX = 1000, 512 * 1024
Json = Mapping[str, Any]


class ItemFields(TypedDict, total=False):
    """What is stored of an item. A field that is left out is that of the updates file, else of the export.

    Attributes:
        title: Its title.
        text: A description, which helps to place a new item.
        category: Its categories: names, and paths as "Fashion > Women > Shoes" or as a list of steps.
        brand: Its brand.
        price: Its price, in `currency`.
        currency: Three capital letters.
        stock: Pieces in stock; with 0 it is not listed.
        in_stock: False: it is not listed.
        image: Address of its picture.
        url: Address of its page.
        attributes: Values that filters may name.
        valid_from: It is listed from then on.
        valid_until: It is not listed any more from then on.
        like: Exported items that a new item resembles.
        vector: A vector of the shop's own making.
    """

    title: str | None
    text: str | None
    category: Sequence[str | Sequence[str]] | None
    brand: str | None
    price: float | None
    currency: str | None
    stock: int | None
    in_stock: bool | None
    image: str | None
    url: str | None
    attributes: Sequence[str] | None
    valid_from: str | int | float | None
    valid_until: str | int | float | None
    like: Sequence[str] | None
    vector: Sequence[float] | None


class ItemLine(ItemFields, total=False):
    """One line of an import: an item, what to do with it (`put` without), and its fields."""

    item_id: Required[str]
    op: Literal["put", "patch", "disable", "enable", "delete"]
    if_version: int


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What became of a change.

    Attributes:
        item_id: The item.
        outcome: `created`, `updated`, `unchanged` or `deleted`.
        version: Grows with every change; None after a deletion.
        disabled: Whether it is disabled.
        warnings: What had no effect, in sentences.
    """

    item_id: str
    outcome: str
    version: int | None
    disabled: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """An item as lists have it.

    Attributes:
        item_id: The item.
        fields: What is known of it, from all sources.
        version: Of the stored fields; None if nothing is stored.
        disabled: Whether it was disabled.
        listed: Whether lists may have it now.
        raw: The item as the service sent it.
    """

    item_id: str
    fields: Json
    version: int | None
    disabled: bool
    listed: bool
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ItemPage:
    """A page of items.

    Attributes:
        items: The items.
        cursor: Asks for the next page; None on the last.
    """

    items: tuple[Item, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ImportedLine:
    """What became of a line of an import.

    Attributes:
        line: Its number, from 1.
        item_id: The item, if the line names one.
        outcome: `created`, `updated`, `unchanged`, `deleted`, or why not: `missing`, `conflict`, `full`, `refused`.
        version: Of the item.
        error: What is wrong with the line.
    """

    line: int
    item_id: str | None
    outcome: str
    version: int | None
    error: str | None


def shown(raw: Json) -> Item:
    """Returns an item."""
    return Item(raw["item_id"], raw["item"], raw["version"], raw["disabled"], raw["listed"], raw)


def _changed(raw: Json) -> ItemChange:
    return ItemChange(raw["item_id"], raw["outcome"], raw["version"], raw["disabled"], tuple(raw.get("warnings", ())))


def _page(raw: Json) -> ItemPage:
    return ItemPage(tuple(map(shown, raw["items"])), raw["cursor"])


def path(item_id: str, end: str = "") -> str:
    """Returns the path of an item: a slash in its id is no slash of the path."""
    return f"/items/{quote(item_id, safe='')}{end}"


def put(item_id: str, fields: ItemFields, if_version: int | None) -> Call[ItemChange]:
    """Stores an item in place of what was stored of it."""
    return Call("PUT", path(item_id), _changed, dict(fields), _version(if_version))


def patch(item_id: str, fields: ItemFields, if_version: int | None) -> Call[ItemChange]:
    """Stores some fields of an item."""
    return Call("PATCH", path(item_id), _changed, dict(fields), _version(if_version))


def delete(item_id: str, if_version: int | None) -> Call[ItemChange]:
    """Deletes what is stored of an item."""
    return Call("DELETE", path(item_id), _changed, query=_version(if_version))


def disable(item_id: str) -> Call[ItemChange]:
    """Takes an item out of all lists."""
    return Call("POST", path(item_id, "/disable"), _changed)


def enable(item_id: str) -> Call[ItemChange]:
    """Lets an item back into lists."""
    return Call("POST", path(item_id, "/enable"), _changed)


def get(item_id: str) -> Call[Item]:
    """Shows an item."""
    return Call("GET", path(item_id), shown)


def page(cursor: str | None, limit: int, *, listed: bool) -> Call[ItemPage]:
    """A page of all items."""
    named = {} if cursor is None else {"cursor": cursor}
    return Call("GET", "/items", _page, query={**named, "limit": limit, "listed": str(listed).lower()})


def search(words: str, limit: int, *, listed: bool) -> Call[ItemPage]:
    """Items by words of their titles."""
    return Call("GET", "/items", _page, query={"q": words, "limit": limit, "listed": str(listed).lower()})


def imports(lines: Iterable[ItemLine]) -> Iterator[Call[list[ImportedLine]]]:
    """Yields the calls of an import; their lines are numbered as those of the whole."""
    before, texts, size = 0, list[str](), 0
    for line in lines:
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        length = len(text.encode()) + 1
        if texts and (len(texts) == LINES_MAX or size + length > LINES_BYTES_MAX):
            yield _import(texts, before)
            before, texts, size = before + len(texts), [], 0
        texts.append(text)
        size += length
    if texts:
        yield _import(texts, before)


def _import(texts: Sequence[str], before: int) -> Call[list[ImportedLine]]:
    def read(raw: Json) -> list[ImportedLine]:
        return [
            ImportedLine(before + one["line"], one["item_id"], one["outcome"], one["version"], one["error"])
            for one in raw["lines"]
        ]

    return Call("POST", "/items", read, lines="\n".join(texts))


def _version(if_version: int | None) -> dict[str, str | int] | None:
    return None if if_version is None else {"if_version": if_version}
