"""Turns the tables of a reader into a checked `Dataset` with its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import polars as pl

from model.data.checks import ROW, Findings, drop_duplicates, drop_missing_ids
from model.data.column_types import TEXT_KINDS, as_text, require
from model.data.dataset import EVENT_SCHEMA, SCENE, Dataset
from model.data.errors import DataError
from model.data.event_names import event_types
from model.data.ids import as_ids
from model.data.items_users import MAX_FEATURE_VALUES, complete_items, complete_users, conform
from model.data.missing import without_words
from model.data.orders import as_order
from model.data.plausibility import drop_returns, note_dominant_ids
from model.data.quantities import as_numbers
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.search_rows import take_searches
from model.data.times import iso_utc, parse_times
from model.data.vectors import matched

# The place of an event in a log that counts its events instead of dating them.
_ORDER = "#order"
# Numbers whose zeros a spreadsheet was told to keep: ="007" and '007.
_SHEET_TEXT = r'^(=".*"|\'\d+)$'
_COLUMNS = EVENT_SCHEMA | {SCENE: pl.String(), "quantity": pl.Float64(), _ORDER: pl.Int64(), "query": pl.String()}


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
    prepare([table for table in (raw.log, raw.items, raw.users) if table], raw)
    events, searches = checked_events(raw, now_ms)
    has_time = events["timestamp"].null_count() < events.height
    if events.is_empty():
        reasons = ", ".join(f"{reason}: {count}" for reason, count in findings.dropped.items())
        raise DataError(
            "no event is left after the checks",
            where=f"{raw.log.file}; dropped: {reasons}",
            fix="fill in what is missing, or check --map",
        )
    events = _order(events, raw, has_time)
    note_dominant_ids(events, findings)
    items = complete_items(raw, events.group_by("item_id", maintain_order=True).agg(pl.len().alias("events")))
    users = complete_users(raw, events["user_id"].unique(maintain_order=True))
    vectors = (
        None if raw.vectors is None else matched(raw.vectors[0], items["item_id"].to_list(), raw.vectors[1], findings)
    )
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
        vectors=vectors,
        searches=searches,
    )


def prepare(tables: Sequence[SourceTable], raw: RawDataset) -> None:
    """Empties fields with a word for a missing value, and says what the caller named and no table has."""
    findings, rules = raw.findings, raw.rules
    words, columns = set(), set()
    for table in tables:
        for note in table.notes:
            findings.note(note)
        columns |= {table.name(name) for name in table.rows.columns}
        words |= _empty_what_is_missing(table, raw)
    for word in sorted(rules.null_words - words):
        findings.note(f"--null {word}: no field holds it")
    for name in sorted(rules.allow_loss - columns):
        findings.note(f"--allow-loss {name}: no column that is read has this name")
    if rules.types and "event_type" not in raw.log.rows.columns:
        findings.note("--type-map is not used: the log has no event types")


def _empty_what_is_missing(table: SourceTable, raw: RawDataset) -> set[str]:
    """Empties fields and drops columns that then hold nothing; returns the words that fields held."""
    rows, words = without_words(table.rows, table.names, raw.rules.null_words, raw.findings)
    empty = [c.name for c in rows if c.null_count() == rows.height and c.name not in ("user_id", "item_id", ROW)]
    if empty:
        names = ", ".join(table.name(name) for name in empty)
        raw.findings.note(f"columns that hold nothing count as absent: {names}")
    table.rows = rows.drop(empty)
    return words


def checked_events(raw: RawDataset, now_ms: int) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The log in its final types, without rows that lack an id or, in a log with times, a time; and the searches."""
    columns = _id_columns(raw)
    columns |= _times(raw, columns["user_id"], now_ms)
    columns |= _optional_columns(raw)
    events = conform(pl.DataFrame([column.alias(name) for name, column in columns.items()]), _COLUMNS)
    events = events.with_columns(raw.log.rows[ROW])
    events, searches = take_searches(events, raw.findings)
    events = drop_missing_ids(events, raw.findings)
    if "timestamp" in columns:
        raw.findings.drop("no time", events["timestamp"].null_count())
        events = events.filter(pl.col("timestamp").is_not_null())
    return drop_returns(events, raw.findings), searches


def _id_columns(raw: RawDataset) -> dict[str, pl.Series]:
    columns = {}
    for name, what in (("user_id", "user"), ("item_id", "item")):
        ids = as_ids(raw.log.rows[name], raw.log.place(name), what, raw.findings)
        padded = int((ids != ids.str.strip_chars()).sum())
        if padded:
            raw.findings.note(f"{padded} values of {name} begin or end with a blank; they are kept as they are")
        if formulas := int(ids.str.contains(_SHEET_TEXT).sum()):
            raw.findings.note(
                f"{formulas} values of {name} are written as a spreadsheet's text (=\"007\" or '007); "
                "they are kept as they are"
            )
        columns[name] = ids
    return columns


def _times(raw: RawDataset, users: pl.Series, now_ms: int) -> dict[str, pl.Series]:
    """`timestamp` in UTC milliseconds, or the order of events that are counted, or neither."""
    rows, findings = raw.log.rows, raw.findings
    untimed = "no times: the order of the rows is the order of the history; time features are off"
    if "timestamp" not in rows.columns:
        findings.note(untimed)
        return {}
    order = None if raw.in_order else as_order(rows["timestamp"], users)
    if order is not None:
        name = raw.log.name("timestamp")
        findings.note(f"column {name!r} counts the events: it is read as their order; time features are off")
        return {_ORDER: order}
    times = parse_times(rows["timestamp"], raw.log.place("timestamp"), now_ms)
    findings.readings["times"] = times.read_as
    if not raw.in_order:  # otherwise the reader parsed the times itself and made this note
        findings.note(f"times read as {times.read_as}")
    zero = int((times.ms == 0).sum())
    if zero:
        findings.note(f"{zero} events are dated 1970-01-01T00:00:00Z; if that stands for no time, name it with --null")
    return {"timestamp": times.ms}


def _optional_columns(raw: RawDataset) -> dict[str, pl.Series]:
    """Event types, and those of values, quantities, sessions and scenes that the log has."""
    rows, place, findings, rules = raw.log.rows, raw.log.place, raw.findings, raw.rules
    columns = {}
    if "event_type" in rows.columns:
        types = event_types(rows["event_type"], raw.default_type, place("event_type"), findings, rules)
        columns["event_type"] = types
    else:
        findings.note(f"no event types: every event is a {raw.default_type!r}")
        columns["event_type"] = pl.Series([raw.default_type]).new_from_index(0, rows.height)
    if "value" in rows.columns:
        columns["value"] = as_numbers(rows["value"], "values", place("value"), findings, rules)
    if "quantity" in rows.columns:
        columns["quantity"] = as_numbers(rows["quantity"], "quantities", place("quantity"), findings, rules)
        if raw.unit_prices and "value" in columns:
            columns["value"] *= columns["quantity"].fill_null(1.0)
    if "session_id" in rows.columns:
        columns["session_id"] = as_ids(rows["session_id"], place("session_id"), "session", findings)
    if "query" in rows.columns:
        require(rows["query"], place("query"), "queries", TEXT_KINDS)
        columns["query"] = as_text(rows["query"])
    if SCENE in rows.columns:
        columns[SCENE] = as_ids(rows[SCENE], place(SCENE), "scene", findings).str.strip_chars()
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
    keys = ["user_row", _ORDER, *(["timestamp"] if has_time and not raw.in_order else [])]
    return events.join(first, on="user_id", maintain_order="left").sort(keys, maintain_order=True)


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
