"""Schemas of the answers about items, for the OpenAPI document and for the tests that check answers against it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from service.schemas.answer import Answer, Warned
from service.schemas.items import ItemRequest

Version = int | None


class ItemChanged(Answer):
    """What became of a change."""

    item_id: str
    outcome: Literal["created", "updated", "unchanged", "deleted"]
    version: Version = Field(
        description="The version of the item, which grows with every change; null after a deletion."
    )
    disabled: bool
    warnings: Warned
    request_id: str


class ItemShown(Answer):
    """An item as lists have it: what is stored of it before what the updates file and the export say."""

    item_id: str
    item: dict[str, Any] = Field(description="Its fields, those that it has.")
    version: Version = Field(description="Of the stored fields; null if nothing is stored.")
    changed_at: str | None = Field(description="When the stored fields changed last.")
    disabled: bool = Field(description="Whether it was disabled: then no list has it, whatever its fields say.")
    listed: bool = Field(description="Whether lists of this replica may have it now.")
    placed_by: Literal["export", "like", "vector", "text", "category"] | None = Field(
        description="What gave it its place among other items; null if nothing did: then it is in no list."
    )


class ItemAnswer(ItemShown):
    """One item."""

    stored: ItemRequest | None = Field(description="What is stored of it.")
    warnings: Warned
    request_id: str


class ItemsAnswer(Answer):
    """A page of items."""

    items: list[ItemShown]
    cursor: str | None = Field(description="Asks for the next page; null on the last one.")
    warnings: Warned
    request_id: str


class ImportedLine(Answer):
    """What became of a line."""

    line: int = Field(description="Its number, from 1.")
    item_id: str | None
    outcome: Literal["created", "updated", "unchanged", "deleted", "missing", "conflict", "full", "refused"]
    version: Version
    error: str | None


class ImportAnswer(Answer):
    """What became of an import."""

    lines: list[ImportedLine]
    counts: dict[str, int] = Field(description="Lines by outcome.")
    request_id: str


class ItemLogEntry(Answer):
    """One change of an item."""

    at: str
    actor: str
    action: str
    item_id: str
    fields: list[str] | None = None
    version: int
    outcome: str


class ItemLogAnswer(Answer):
    """Who changed which item, newest first."""

    entries: list[ItemLogEntry]
    fault: str | None = Field(description="Why there are none: Redis cannot be used; null if it can.")
    request_id: str
