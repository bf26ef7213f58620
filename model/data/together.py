"""Two data sets as one: what was there, and what came after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from model.data import searches
from model.data.checks import Findings
from model.data.dataset import EVENT_SCHEMA, Dataset
from model.data.items_users import checked_items, conform_items
from model.data.readers.side_tables import read_items
from model.data.rules import Rules
from model.data.vectors import merged

# Events that are equal in these are one event.
SAME_EVENT = ["user_id", "item_id", "timestamp", "event_type"]


def together(old: Dataset, new: Dataset, report: dict[str, Any] | None = None) -> Dataset:
    """Returns the events, items and users of both; the items and users of the old one come first.

    Of equal events the old one stays. What the new data say of an item or a user goes before what the old ones say, and
    where they say nothing the old ones hold. User features are those of the old data.

    Args:
        old: A log with times.
        new: A log with times.
        report: What the new data set says about both.
    """
    events = each_once(old.events, new.events)
    columns = [*EVENT_SCHEMA, *(name for name in events.columns if name not in EVENT_SCHEMA)]
    features = new.users.select(name for name in new.users.columns if name in old.users.columns)
    return Dataset.of(
        old.name, by_user(events).select(columns), _rows(old.items, new.items, "item_id"),
        _rows(old.users, features, "user_id"), has_time=True, category_kind=old.category_kind, report=report,
        source=f"{old.source}; {new.source}", vectors=merged(old.vectors, new.vectors),
        searches=searches.merged(old.searches, new.searches),
    )  # fmt: skip


def each_once(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Returns the events of two tables, the old ones first; of equal events the first one stays."""
    return pl.concat([old, new], how="diagonal").unique(SAME_EVENT, keep="first", maintain_order=True)


def by_user(events: pl.DataFrame) -> pl.DataFrame:
    """Returns events by user in order of first appearance, and by time within a user."""
    place = pl.DataFrame({"user_id": events["user_id"].unique(maintain_order=True)}).with_row_index("of_user")
    placed = events.join(place, on="user_id", maintain_order="left")
    return placed.sort("of_user", "timestamp", maintain_order=True).select(events.columns)


def with_items(dataset: Dataset, file: Path) -> Dataset:
    """Returns a data set with what a table says of its items, and with the items that only the table has.

    Args:
        dataset: The data set.
        file: Table of items, as `gpt4rec data import --items` reads it.

    Raises:
        DataError: The table cannot be used.
    """
    findings = Findings()
    table, kind = read_items(file, {}, findings)
    told = checked_items(table, findings, Rules()).filter(pl.col("item_id").is_not_null())
    items = _rows(dataset.items, conform_items(told.unique("item_id", keep="first", maintain_order=True)), "item_id")
    kind = dataset.category_kind if (dataset.items["category"].list.len() > 0).any() else kind
    report = {**dataset.report, "items": len(items), "notes": [*dataset.report.get("notes", []), *findings.notes]}
    return Dataset.of(
        dataset.name, dataset.events, items, dataset.users, has_time=dataset.has_time, category_kind=kind,
        report=report, source=dataset.source, vectors=dataset.vectors, searches=dataset.searches,
    )  # fmt: skip


def _rows(old: pl.DataFrame, new: pl.DataFrame, key: str) -> pl.DataFrame:
    """The rows of two tables by their id, with the columns of the old one, then those that the new one has beside."""
    ids = pl.DataFrame({key: pl.concat([old[key], new[key]]).unique(maintain_order=True)})
    both = ids.join(old, on=key, how="left", maintain_order="left")
    both = both.join(new, on=key, how="left", maintain_order="left", suffix="_new")
    said = [
        pl.coalesce(_said(f"{name}_new", kind), name).alias(name) if f"{name}_new" in both.columns else pl.col(name)
        for name, kind in old.schema.items()
        if name != key
    ]
    more = [name for name in new.columns if name not in old.columns]
    return both.select(key, *said, *more).with_columns(
        pl.col(name).fill_null([]) for name, kind in old.schema.items() if isinstance(kind, pl.List)
    )


def _said(name: str, kind: pl.DataType) -> pl.Expr:
    """A value, null where it says nothing."""
    column = pl.col(name)
    return pl.when(column.list.len() > 0).then(column) if isinstance(kind, pl.List) else column
