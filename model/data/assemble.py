"""Turns the tables of a reader into a checked `Dataset` with its report."""

from __future__ import annotations

import time
from typing import Any

import polars as pl

from model.data.checks import ROW, Findings, as_ids, as_numbers, drop_duplicates, drop_missing_ids, event_types
from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, SCENE, Dataset
from model.data.errors import DataError
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.times import iso_utc, parse_times

# User features and scenes are small sets of groups. A column with more values (a zip code) identifies people instead.
MAX_FEATURE_VALUES = 100


def assemble(raw: RawDataset, now_ms: int | None = None) -> Dataset:
    """Checks, cleans, sorts and completes the tables of a reader.

    Args:
        raw: The tables, as read.
        now_ms: The time of the import in UTC milliseconds, by default the clock's; later times are refused.

    Returns:
        The data set, with everything dropped and noted in its report.

    Raises:
        DataError: The tables cannot be used, or every event was dropped.
    """
    findings, now_ms = raw.findings, now_ms if now_ms is not None else time.time_ns() // 1_000_000
    if raw.log.rows.is_empty():
        raise DataError("there are no events", where=raw.log.file, fix="give a log with at least one event")
    has_time = "timestamp" in raw.log.rows.columns
    events = _events(raw, has_time, now_ms)
    if events.is_empty():
        reasons = ", ".join(f"{reason}: {count}" for reason, count in findings.dropped.items())
        raise DataError(
            "no event is left after the checks",
            where=f"{raw.log.file}; dropped: {reasons}",
            fix="fill in what is missing, or check --map",
        )
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


def _events(raw: RawDataset, has_time: bool, now_ms: int) -> pl.DataFrame:
    """The columns of the log in their final types, without rows that lack an id or, in a log with times, a time."""
    columns = _id_columns(raw)
    columns["timestamp"] = _timestamps(raw, has_time, now_ms)
    columns |= _optional_columns(raw)
    schema = EVENT_SCHEMA | {SCENE: pl.String()}
    events = _conform(pl.DataFrame([column.alias(name) for name, column in columns.items()]), schema)
    events = drop_missing_ids(events.with_columns(raw.log.rows[ROW]), raw.findings)
    if has_time:
        raw.findings.drop("no time", events["timestamp"].null_count())
        events = events.filter(pl.col("timestamp").is_not_null())
    return events


def _id_columns(raw: RawDataset) -> dict[str, pl.Series]:
    rows, place = raw.log.rows, raw.log.place()
    columns = {
        "user_id": as_ids(rows["user_id"], place, "user"),
        "item_id": as_ids(rows["item_id"], place, "item"),
    }
    for name, ids in columns.items():
        padded = int((ids != ids.str.strip_chars()).sum())
        if padded:
            raw.findings.note(f"{padded} values of {name} begin or end with a blank; they are kept as they are")
    return columns


def _timestamps(raw: RawDataset, has_time: bool, now_ms: int) -> pl.Series:
    """[rows] UTC milliseconds, null everywhere in a log without times."""
    rows, findings = raw.log.rows, raw.findings
    if not has_time:
        findings.note("no times: the order of the rows is the order of the history; time features are off")
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, rows.height)
    times = parse_times(rows["timestamp"], raw.log.place(), now_ms)
    if not raw.in_order:  # otherwise the reader parsed the times itself and made this note
        findings.note(f"times read as {times.read_as}")
    return times.ms


def _optional_columns(raw: RawDataset) -> dict[str, pl.Series]:
    """Event types, and those of values, sessions and scenes that the log has."""
    rows, place, findings = raw.log.rows, raw.log.place(), raw.findings
    columns = {}
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
    return columns


def _scene_column(events: pl.DataFrame, findings: Findings) -> list[str]:
    """The name of the scene column if the log has scenes and few enough to learn, else no name."""
    values = events[SCENE].drop_nulls().n_unique()
    if values > MAX_FEATURE_VALUES:
        findings.note(f"there are {values} scenes, too many to learn; they are left out")
    return [SCENE] if 0 < values <= MAX_FEATURE_VALUES else []


def _order(events: pl.DataFrame, raw: RawDataset, has_time: bool) -> pl.DataFrame:
    """Groups events by user in order of first appearance, then sorts by time; ties keep the order of the source."""
    findings = raw.findings
    if has_time and not raw.in_order:
        events = drop_duplicates(events, findings)
        goes_back = pl.col("timestamp") < pl.col("timestamp").shift(1).over("user_id")
        late = int(events.select(goes_back.sum()).item())
        if late:
            findings.note(f"{late} rows came after a later event of the same user; they are sorted by time")
    first = events.group_by("user_id", maintain_order=True).len().drop("len").with_row_index("user_row")
    keys = ["user_row", "timestamp"] if has_time and not raw.in_order else ["user_row"]
    return events.join(first, on="user_id", maintain_order="left").sort(keys, maintain_order=True)


def _items(raw: RawDataset, events: pl.DataFrame) -> pl.DataFrame:
    seen = events["item_id"].unique(maintain_order=True)
    if raw.items is None:
        return _conform(pl.DataFrame({"item_id": seen}), ITEM_SCHEMA)
    table = _unique_by(raw.items, "item_id", "item", raw.findings)
    if "price" in table.columns:
        table = table.with_columns(as_numbers(table["price"], "prices", raw.findings))
    table = _conform(table, ITEM_SCHEMA)
    unknown = seen.filter(~seen.is_in(table["item_id"].implode()))
    if len(unknown):
        affected = events["item_id"].is_in(unknown.implode()).sum()
        raw.findings.note(
            f"{len(unknown)} items of the log ({affected} events) are not in the item table; they have no title"
        )
    idle = table.height + len(unknown) - len(seen)
    if idle:
        raw.findings.note(f"{idle} items of the item table have no event; they are kept in the catalogue")
    return pl.concat([table, _conform(pl.DataFrame({"item_id": unknown}), ITEM_SCHEMA)])


def _users(raw: RawDataset, events: pl.DataFrame) -> pl.DataFrame:
    seen = pl.DataFrame({"user_id": events["user_id"].unique(maintain_order=True)})
    if raw.users is None:
        return seen
    table = _unique_by(raw.users, "user_id", "user", raw.findings)
    without_events = table.join(seen, on="user_id", how="anti").height
    raw.findings.drop("users of the user table without any event", without_events)
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


def _unique_by(table: SourceTable, key: str, what: str, findings: Findings) -> pl.DataFrame:
    """Keeps one row for each id; rows without an id and repeats are dropped and counted."""
    rows = table.rows.with_columns(as_ids(table.rows[key], table.place(), what).alias(key)).drop(ROW)
    known = rows.filter(pl.col(key).is_not_null())
    findings.drop(f"{what} rows without an id", rows.height - known.height)
    once = known.unique(subset=[key], keep="first", maintain_order=True)
    findings.drop(f"repeated {what} rows (the first is kept)", known.height - once.height)
    return once


def _conform(table: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Selects the columns of a schema in its order; absent columns are null, absent lists empty."""
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
    first: Any = events["timestamp"].min()  # polars types it as any value of a column
    last: Any = events["timestamp"].max()
    pairs = events.select("user_id", "item_id").unique().height
    return {
        "users": users.height,
        "items": items.height,
        "items_with_events": active,
        "events": events.height,
        "event_types": dict(events["event_type"].value_counts(sort=True).iter_rows()),
        "events_per_user": {"min": lengths.min(), "median": lengths.median(), "max": lengths.max()},
        "density": pairs / (users.height * items.height),
        "first_event": iso_utc(first) if has_time else None,
        "last_event": iso_utc(last) if has_time else None,
        "dropped": findings.dropped,
        "notes": findings.notes,
    }
