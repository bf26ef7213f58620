"""Every way to import a data set behind one function."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from model.data.assemble import Raw, Table, assemble
from model.data.checks import ROW
from model.data.dataset import Dataset
from model.data.formats import LOG_COLUMNS, Format, ImportRequest
from model.data.readers.amazon_office import read_office
from model.data.readers.complete_journey import read_complete_journey
from model.data.readers.recbole import read_recbole
from model.data.readers.sequences import read_attributes, read_sequences
from model.data.readers.tables import read_items, read_log, read_users


def import_dataset(
    request: ImportRequest, step: Callable[[str], None] = lambda _: None, now_ms: int | None = None
) -> Dataset:
    """Read, check and complete a data set; `step` is told what is being done. Raises `DataError`."""
    now_ms = now_ms if now_ms is not None else time.time_ns() // 1_000_000
    step(f"reading {request.source}")
    raw = _read(request, now_ms)
    if request.items:
        step(f"reading {request.items}")
        raw.items, raw.category_kind = read_items(request.items, request.columns, raw.findings)
    if request.users:
        step(f"reading {request.users}")
        raw.users = read_users(request.users, request.columns)
    if request.attributes:
        step(f"reading {request.attributes}")
        raw.items = _with_attributes(raw.items, read_attributes(request.attributes))
    step("checking")
    return assemble(raw, now_ms)


def _read(request: ImportRequest, now_ms: int) -> Raw:
    source, columns = Path(request.source), request.columns
    match request.format:
        case Format.RECBOLE:
            return read_recbole(source, {r: c for r, c in columns.items() if r in LOG_COLUMNS})
        case Format.SEQUENCES:
            return read_sequences(source, request.times, now_ms=now_ms)
        case Format.CSV | Format.PARQUET:
            return read_log(source, columns, parquet=request.format is Format.PARQUET)
        case Format.COMPLETE_JOURNEY:
            return read_complete_journey(request.source)
        case Format.OFFICE:
            return read_office(source)


def _with_attributes(items: Table | None, attributes: Table) -> Table:
    """The item table with the attributes joined on; items only the attributes know are put behind it."""
    if items is None:
        return attributes
    rows = items.rows.with_columns(pl.col("item_id").cast(pl.String))
    rows = rows.drop("attributes", strict=False)
    joined = rows.join(attributes.rows.drop(ROW), on="item_id", how="full", coalesce=True, maintain_order="left_right")
    return Table(joined.with_columns(pl.col(ROW).fill_null(0)), items.file, items.unit)
