"""Imports a data set of any format: calls the reader of the format, adds the side tables, and checks the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.assemble import assemble
from model.data.checks import ROW, Findings
from model.data.columns import LOG_COLUMNS
from model.data.dataset import CategoryKind, Dataset
from model.data.date_format import read_dates
from model.data.formats import Format, ImportRequest, ItemsFormat
from model.data.ids import as_ids
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.readers.amazon_office import read_amazon_office
from model.data.readers.complete_journey import read_complete_journey
from model.data.readers.event_tables import read_log
from model.data.readers.ga4 import read_ga4
from model.data.readers.gorse import read_gorse
from model.data.readers.merchant_feed import read_merchant_feed
from model.data.readers.movielens_files import read_movielens
from model.data.readers.recbole import read_recbole
from model.data.readers.retailrocket import read_retailrocket
from model.data.readers.sequences import read_sequences
from model.data.readers.shopify import read_products, read_shopify
from model.data.readers.side_tables import read_attributes, read_items, read_users
from model.data.readers.taobao import read_taobao
from model.data.readers.vector_files import read_vectors
from model.data.sources import find_files, stdin_spooled


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
    return assemble(read_everything(request, step, now_ms), now_ms)


def read_everything(request: ImportRequest, step: Callable[[str], None], now_ms: int) -> RawDataset:
    """Reads the source and its side tables, and converts what the options say; nothing is checked yet.

    Raises:
        DataError: A file is missing, damaged or cannot be used.
    """
    step(f"reading {request.source}")
    with stdin_spooled(request.sources) as (source, *more):
        raw = read_source(replace(request, source=source, more=tuple(more)), now_ms)
    raw.rules = replace(request.rules, types={**_present(raw), **request.rules.types})
    for role, why in request.unused_roles().items():
        raw.findings.note(f"the mapping of {role} is not used: {why}")
    read_side_tables(raw, request, step)
    if request.date_format:
        raw.log = read_dates(raw.log, request.date_format, request.rules.null_words)
    step("checking")
    return raw


def read_side_tables(raw: RawDataset, request: ImportRequest, step: Callable[[str], None]) -> None:
    """Reads the tables of items and users, the attributes and the vectors.

    Raises:
        DataError: A file is missing, damaged or cannot be used.
    """
    if request.items:
        step(f"reading {request.items}")
        raw.items, raw.category_kind = _items(request, request.items, raw.findings)
    if request.users:
        step(f"reading {request.users}")
        raw.users = read_users(request.users, request.columns)
    if request.attributes:
        step(f"reading {request.attributes}")
        raw.items = _with_attributes(raw.items, read_attributes(request.attributes), raw.findings)
    if request.vectors:
        step(f"reading {request.vectors}")
        raw.vectors = read_vectors(request.vectors, raw.findings), str(request.vectors)


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
        case Format.CSV | Format.PARQUET | Format.JSONL:
            files = find_files(request.sources, request.format)
            raw = read_log(files, request.format, columns, request.text)
            raw.name = source.name if source.is_dir() else raw.name
            return raw
        case Format.COMPLETE_JOURNEY:
            return read_complete_journey(request.source)
        case Format.AMAZON_OFFICE:
            return read_amazon_office(source)
        case Format.MOVIELENS:
            return read_movielens(source)
        case Format.RETAILROCKET:
            return read_retailrocket(source)
        case Format.TAOBAO:
            return read_taobao(find_files(request.sources, request.format))
        case Format.GORSE:
            return read_gorse(source)
        case Format.GA4:
            return read_ga4(find_files(request.sources, request.format))
        case Format.SHOPIFY:
            return read_shopify(find_files(request.sources, request.format))


def _present(raw: RawDataset) -> dict[str, str]:
    """The event types of the format that the log holds."""
    if not raw.types or "event_type" not in raw.log.rows.columns:
        return {}
    held = set(raw.log.rows["event_type"].cast(pl.String).str.strip_chars().str.to_lowercase().unique().drop_nulls())
    return {theirs: ours for theirs, ours in raw.types.items() if theirs in held}


def _items(request: ImportRequest, path: Path, findings: Findings) -> tuple[SourceTable, CategoryKind]:
    match request.items_format:
        case ItemsFormat.MERCHANT_FEED:
            return read_merchant_feed(path)
        case ItemsFormat.SHOPIFY:
            return read_products(path)
        case ItemsFormat.TABLE:
            return read_items(path, {**request.columns, **request.items_columns}, findings)


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
