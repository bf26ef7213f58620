"""Imports a data set of any format: calls the reader of the format, adds the side tables, and checks the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.assemble import assemble
from model.data.checks import ROW, Findings
from model.data.dataset import Dataset
from model.data.formats import LOG_COLUMNS, Format, ImportRequest
from model.data.ids import as_ids
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.readers.amazon_office import read_amazon_office
from model.data.readers.complete_journey import read_complete_journey
from model.data.readers.csv_parquet import read_log
from model.data.readers.recbole import read_recbole
from model.data.readers.sequences import read_sequences
from model.data.readers.side_tables import read_attributes, read_items, read_users


def import_dataset(
    request: ImportRequest, step: Callable[[str], None] = lambda _: None, now_ms: int | None = None
) -> Dataset:
    """Reads, checks and completes a data set.

    Args:
        request: The source, its format and the side tables.
        step: Called with a few words before each step, for a progress display.
        now_ms: The time of the import in UTC milliseconds, by default the clock's; later times are refused.

    Returns:
        The data set with its report; nothing is written.

    Raises:
        DataError: A file is missing, damaged or cannot be used.
    """
    now_ms = now_ms if now_ms is not None else time.time_ns() // 1_000_000
    step(f"reading {request.source}")
    raw = read_source(request, now_ms)
    raw.rules = request.rules
    for role, why in request.unused_roles().items():
        raw.findings.note(f"--map {role}={request.columns[role]} is not used: {why}")
    if request.items:
        step(f"reading {request.items}")
        raw.items, raw.category_kind = read_items(request.items, request.columns, raw.findings)
    if request.users:
        step(f"reading {request.users}")
        raw.users = read_users(request.users, request.columns)
    if request.attributes:
        step(f"reading {request.attributes}")
        raw.items = _with_attributes(raw.items, read_attributes(request.attributes), raw.findings)
    step("checking")
    return assemble(raw, now_ms)


def read_source(request: ImportRequest, now_ms: int) -> RawDataset:
    """Calls the reader of the request's format; side tables are read elsewhere.

    Raises:
        DataError: The source is missing, damaged or not of this format.
    """
    source, columns = Path(request.source), request.columns
    match request.format:
        case Format.RECBOLE:
            return read_recbole(source, {role: column for role, column in columns.items() if role in LOG_COLUMNS})
        case Format.SEQUENCES:
            return read_sequences(source, request.times, now_ms=now_ms)
        case Format.CSV | Format.PARQUET:
            return read_log(source, columns, parquet=request.format is Format.PARQUET)
        case Format.COMPLETE_JOURNEY:
            return read_complete_journey(request.source)
        case Format.AMAZON_OFFICE:
            return read_amazon_office(source)


def _with_attributes(items: SourceTable | None, attributes: SourceTable, findings: Findings) -> SourceTable:
    """Joins the attributes to the item table; items that only the attributes name come last."""
    if items is None:
        return attributes
    ids = as_ids(items.rows["item_id"], items.place("item_id"), "item", findings)
    if "attributes" in items.rows.columns:
        findings.note(f"column {items.name('attributes')!r} of the item table is not used: --attributes replaces it")
    rows = items.rows.with_columns(ids.alias("item_id")).drop("attributes", strict=False)
    joined = rows.join(attributes.rows.drop(ROW), on="item_id", how="full", coalesce=True, maintain_order="left_right")
    return replace(items, rows=joined.with_columns(pl.col(ROW).fill_null(0)))
