"""From what a reader found to a checked `Dataset` with its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from model.data.checks import ROW, Findings, as_ids, as_numbers, drop_duplicates, drop_missing_ids, event_types
from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, SCENE, CategoryKind, Dataset
from model.data.errors import DataError
from model.data.times import Place, parse_times

# A user feature and a scene are small sets of groups; a column with more values (a zip code) names people instead.
MAX_FEATURE_VALUES = 100


@dataclass
class Table:
    """Rows as a reader found them, with the line (or row) number of each in column `ROW`."""

    rows: pl.DataFrame
    file: str
    unit: str = "line"

    def place(self) -> Place:
        return Place(self.file, self.rows[ROW], self.unit)


@dataclass
class Raw:
    """What a reader hands in.

    `log.rows` has user_id, item_id and maybe timestamp, event_type, value, session_id, scene, of any type. `items`
    and `users` have item_id and user_id and some of the other columns. With `in_order` the order of the
    source is the order of the history (a sequence file): rows of a user are not sorted, and repeats are not
    duplicates.
    """

    name: str
    source: str
    log: Table
    items: Table | None = None
    users: Table | None = None
    category_kind: CategoryKind = "tags"
    default_type: str = "view"
    in_order: bool = False
    findings: Findings = field(default_factory=Findings)


def assemble(raw: Raw, now_ms: int | None = None) -> Dataset:
    """Check, clean, sort and complete what a reader found. Raises `DataError` where it cannot be used."""
    findings, now_ms = raw.findings, now_ms if now_ms is not None else time.time_ns() // 1_000_000
    if raw.log.rows.is_empty():
        raise DataError("there are no events", where=raw.log.file, mend="give a log with at least one event")
    has_time = "timestamp" in raw.log.rows.columns
    events = _events(raw, has_time, now_ms)
    if events.is_empty():
        reasons = ", ".join(f"{reason}: {count}" for reason, count in findings.dropped.items())
        raise DataError("no event is left", where=f"{raw.log.file}; dropped: {reasons}", mend="mend the log")
    events = _order(events, raw, has_time)
    items = _items(raw, events)
    users = _users(raw, events)
    events = events.select(*EVENT_SCHEMA, *_scene_column(events, findings))
    return Dataset.of(
        raw.name,
        events,
        items,
        users,
        has_time=has_time,
        category_kind=raw.category_kind,
        report=_report(events, items, users, has_time, findings),
        source=raw.source,
    )


def _events(raw: Raw, has_time: bool, now_ms: int) -> pl.DataFrame:
    rows, place, findings = raw.log.rows, raw.log.place(), raw.findings
    columns = {
        "user_id": as_ids(rows["user_id"], place, "user"),
        "item_id": as_ids(rows["item_id"], place, "item"),
    }
    for name in columns:
        padded = int((columns[name] != columns[name].str.strip_chars()).sum())
        if padded:
            findings.note(f"{padded} values of {name} begin or end with a blank; they are kept as they are")
    if has_time:
        times = parse_times(rows["timestamp"], place, now_ms)
        if not raw.in_order:  # such a reader has read the times itself
            findings.note(f"times read as {times.read_as}")
        columns["timestamp"] = times.ms
    else:
        columns["timestamp"] = pl.Series([None], dtype=pl.Int64).new_from_index(0, rows.height)
        findings.note("no times: the order of the rows is the order of the history, time features are off")
    if "event_type" in rows.columns:
        columns["event_type"] = event_types(rows["event_type"], raw.default_type, findings)
    else:
        findings.note(f"no event types: every event is a {raw.default_type!r}")
        columns["event_type"] = pl.Series([raw.default_type]).new_from_index(0, rows.height)
    if "value" in rows.columns:
        columns["value"] = as_numbers(rows["value"], "values", findings)
    if "session_id" in rows.columns:
        columns["session_id"] = as_ids(rows["session_id"], place, "session")
    if SCENE in rows.columns:
        columns[SCENE] = as_ids(rows[SCENE], place, "scene").str.strip_chars()
    schema = EVENT_SCHEMA | {SCENE: pl.String()}
    events = _conform(pl.DataFrame([s.alias(name) for name, s in columns.items()]), schema)
    events = drop_missing_ids(events.with_columns(rows[ROW]), findings)
    if has_time:
        findings.drop("no time", events["timestamp"].null_count())
        events = events.filter(pl.col("timestamp").is_not_null())
    return events


def _scene_column(events: pl.DataFrame, findings: Findings) -> list[str]:
    """The name of the scene column where the log has scenes, and few enough to be learned."""
    values = events[SCENE].drop_nulls().n_unique()
    if values > MAX_FEATURE_VALUES:
        findings.note(f"there are {values} scenes, too many to be learned; they are left out")
    return [SCENE] if 0 < values <= MAX_FEATURE_VALUES else []


def _order(events: pl.DataFrame, raw: Raw, has_time: bool) -> pl.DataFrame:
    """Group by user in order of first appearance, then by time; ties keep the order of the source."""
    findings = raw.findings
    if has_time and not raw.in_order:
        events = drop_duplicates(events, findings)
        back = pl.col("timestamp") < pl.col("timestamp").shift(1).over("user_id")
        late = int(events.select(back.sum()).item())
        if late:
            findings.note(f"{late} rows came after a later event of the same user; sorted by time")
    first = events.group_by("user_id", maintain_order=True).len().drop("len").with_row_index("user_row")
    keys = ["user_row", "timestamp"] if has_time and not raw.in_order else ["user_row"]
    return events.join(first, on="user_id", maintain_order="left").sort(keys, maintain_order=True)


def _items(raw: Raw, events: pl.DataFrame) -> pl.DataFrame:
    seen = events["item_id"].unique(maintain_order=True)
    if raw.items is None:
        return _conform(pl.DataFrame({"item_id": seen}), ITEM_SCHEMA)
    table = _keyed(raw.items, "item_id", "item", raw.findings)
    if "price" in table.columns:
        table = table.with_columns(as_numbers(table["price"], "prices", raw.findings))
    table = _conform(table, ITEM_SCHEMA)
    unknown = seen.filter(~seen.is_in(table["item_id"].implode()))
    if len(unknown):
        share = events["item_id"].is_in(unknown.implode()).sum()
        raw.findings.note(
            f"{len(unknown)} items of the log ({share} events) are not in the item table; kept, without title"
        )
    idle = table.height + len(unknown) - len(seen)
    if idle:
        raw.findings.note(f"{idle} items of the item table have no event; they are kept in the catalogue")
    return pl.concat([table, _conform(pl.DataFrame({"item_id": unknown}), ITEM_SCHEMA)])


def _users(raw: Raw, events: pl.DataFrame) -> pl.DataFrame:
    seen = pl.DataFrame({"user_id": events["user_id"].unique(maintain_order=True)})
    if raw.users is None:
        return seen
    table = _keyed(raw.users, "user_id", "user", raw.findings)
    empty = table.join(seen, on="user_id", how="anti").height
    raw.findings.drop("users of the user table without any event", empty)
    features = [pl.col("user_id")]
    for name in table.columns:
        if name == "user_id":
            continue
        values = table[name].n_unique()
        if values > MAX_FEATURE_VALUES:
            raw.findings.note(f"user column {name!r} has {values} values, too many for a feature; it is left out")
            continue
        text = pl.col(name).cast(pl.String).str.strip_chars()
        features.append(pl.when(text != "").then(text).alias(name))
    joined = seen.join(table.select(features), on="user_id", how="left", maintain_order="left")
    missing = seen.join(table, on="user_id", how="anti").height
    if missing:
        raw.findings.note(f"{missing} users of the log are not in the user table; their features are unknown")
    return joined


def _keyed(table: Table, key: str, what: str, findings: Findings) -> pl.DataFrame:
    """A table with one row an id: rows without an id and repeats are dropped and counted."""
    rows = table.rows.with_columns(as_ids(table.rows[key], table.place(), what).alias(key)).drop(ROW)
    known = rows.filter(pl.col(key).is_not_null())
    findings.drop(f"{what} rows without an id", rows.height - known.height)
    once = known.unique(subset=[key], keep="first", maintain_order=True)
    findings.drop(f"repeated {what} rows (the first is kept)", known.height - once.height)
    return once


def _conform(table: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """The columns of a schema in its order; absent ones are null, lists empty."""
    columns = []
    for name, dtype in schema.items():
        column = pl.col(name) if name in table.columns else pl.lit(None)
        column = column.cast(dtype)
        columns.append((column.fill_null([]) if isinstance(dtype, pl.List) else column).alias(name))
    return table.select(columns) if table.height else pl.DataFrame(schema=schema)


def _report(
    events: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame, has_time: bool, findings: Findings
) -> dict[str, Any]:
    lengths = events.group_by("user_id").len()["len"]
    active = events["item_id"].n_unique()
    pairs = events.select("user_id", "item_id").unique().height
    return {
        "users": users.height,
        "items": items.height,
        "items_with_events": active,
        "events": events.height,
        "event_types": dict(events["event_type"].value_counts(sort=True).iter_rows()),
        "events_per_user": {"min": lengths.min(), "median": lengths.median(), "max": lengths.max()},
        "density": pairs / (users.height * items.height),
        "first_event": _iso(events["timestamp"].min()) if has_time else None,
        "last_event": _iso(events["timestamp"].max()) if has_time else None,
        "dropped": findings.dropped,
        "notes": findings.notes,
    }


def _iso(ms: Any) -> str:
    return datetime.fromtimestamp(int(ms) / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def numbered(rows: pl.DataFrame, first: int = 2) -> pl.DataFrame:
    """Rows with their line number in column `ROW`; line 1 of a file with a header is the header."""
    return rows.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(ROW))


def split_tags(column: pl.Series, separator: str, drop: Sequence[str] = ()) -> pl.Series:
    """[rows] lists of non-empty tags from text such as `Action|Comedy`; missing text is an empty list."""
    tags = pl.col("t").str.split(separator).list.eval(pl.element().str.strip_chars())
    keep = tags.list.eval(pl.element().filter((pl.element() != "") & ~pl.element().is_in(list(drop))))
    return pl.DataFrame({"t": column.cast(pl.String)}).select(keep.fill_null([])).to_series().alias(column.name)
