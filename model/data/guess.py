"""Finds out how a source is written, for `gpt4rec data import --guess`. What the caller named is kept."""

from __future__ import annotations

import csv
import glob
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl

from model.data.columns import LOG_ALIASES, spelled
from model.data.compression import compression_of, plain_name
from model.data.errors import DataError
from model.data.event_names import ALIASES, KNOWN_TYPES
from model.data.files import PARQUET_MAGIC, read_bytes
from model.data.formats import Format, ImportRequest, ItemsFormat, TextOptions
from model.data.readers.complete_journey import NAMES
from model.data.readers.delimited import likeliest_separator
from model.data.readers.tables import kind_of
from model.data.sources import find_files
from model.data.times import Place, parse_times

_HEAD_BYTES = 2**18
_RECORDS = 200
_SEPARATORS = (",", "\t", ";", "|", "::", "\x01")
# A value with this many levels or fewer, beside users and items, is a rating.
_LEVELS = 20
_FEED = {"googleproductcategory", "gtin", "availability", "imagelink"}


def guess_format(source: str, now_ms: int) -> Format:
    """Guesses the format of a source by its name and its first lines.

    Args:
        source: A file, a folder, a pattern, or the name of a package that carries data.
        now_ms: The time of the import in UTC milliseconds.

    Raises:
        DataError: There is no such file, or it cannot be read.
    """
    path = Path(source)
    if source in NAMES:
        return Format.COMPLETE_JOURNEY
    if path.is_dir():
        return _format_of_folder(path)
    if not path.exists() and glob.has_magic(source):
        path = find_files([source], Format.CSV)[0].path
    return _format_of_file(path, now_ms)


def _format_of_folder(folder: Path) -> Format:
    names = {plain_name(path).lower() for path in folder.glob("*")}
    if any(name.endswith(".inter") for name in names):
        return Format.RECBOLE
    if "ratings.dat" in names or {"ratings.csv", "movies.csv"} <= names:
        return Format.MOVIELENS
    if "events.csv" in names and any(name.startswith(("item_properties", "category_tree")) for name in names):
        return Format.RETAILROCKET
    if {"transactions.parquet", "products.parquet"} <= names:
        return Format.COMPLETE_JOURNEY
    if {"samples.csv", "items.jsonl"} <= names:
        return Format.AMAZON_OFFICE
    if "feedback.csv" in names:
        return Format.GORSE
    kinds = [kind_of(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] not in "._"]
    return max(sorted(set(kinds)), key=kinds.count, default=Format.CSV)


def _format_of_file(path: Path, now_ms: int) -> Format:
    name, head = plain_name(path).lower(), _head(path)
    if name.endswith(".inter"):
        return Format.RECBOLE
    if name == "ratings.dat":
        return Format.MOVIELENS
    if head.startswith(PARQUET_MAGIC):
        return Format.GA4 if _is_ga4(_parquet_columns(path)) else Format.PARQUET
    text = _decoded(head).lstrip()
    if text.startswith(("{", "[")):
        return Format.GA4 if _is_ga4(_first_keys(text)) else Format.JSONL
    return _format_of_text(text, now_ms)


def _format_of_text(text: str, now_ms: int) -> Format:
    records = _records(text, guess_text(text, TextOptions(), None))
    first = {spelled(field) for field in records[0]} if records else set()
    if {"lineitemname", "email"} <= first:
        return Format.SHOPIFY
    if {"feedbacktype", "userid", "itemid"} <= first:
        return Format.GORSE
    if records and len(records[0]) == 1 and len(text.split("\n", 1)[0].split()) > 2 and not _names_columns(text):
        return Format.SEQUENCES
    behaviours = {record[3] for record in records if len(record) == 5}
    if behaviours and behaviours <= {"pv", "buy", "cart", "fav"} and "time" in guess_columns(records, now_ms):
        return Format.TAOBAO
    return Format.CSV


def _names_columns(text: str) -> bool:
    """Returns whether the first line holds names of columns with blanks between, which no list of items does."""
    first = text.split("\n", 1)[0]
    known = {*LOG_ALIASES["user"], *LOG_ALIASES["item"]}
    blanks_alone = not any(separator in first for separator in _SEPARATORS)
    return blanks_alone and len({spelled(word) for word in first.split()} & known) > 1


def _is_ga4(columns: set[str]) -> bool:
    return {"event_name", "event_timestamp", "user_pseudo_id", "items"} <= columns


def _parquet_columns(path: Path) -> set[str]:
    try:
        return set() if compression_of(path.name) else set(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError):  # the reader of the format will say what is wrong
        return set()


def _first_keys(text: str) -> set[str]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text.removeprefix("[").lstrip())
    except ValueError:
        return set()
    return set(value) if isinstance(value, dict) else set()


def completed(request: ImportRequest, header: bool | None, now_ms: int) -> ImportRequest:
    """Adds what a request leaves open: how text is written, the columns of a log without a header, the items' format.

    Args:
        request: A request with its format.
        header: Whether the first line names the columns, or None to find out.
        now_ms: The time of the import in UTC milliseconds.

    Raises:
        DataError: A file is missing or cannot be read.
    """
    if request.items and request.items_format is ItemsFormat.TABLE and not request.items_columns:
        request = replace(request, items_format=_items_format(request.items))
    if request.format is not Format.CSV:
        return request
    text = _decoded(_head(find_files(request.sources, Format.CSV)[0].path))
    options = guess_text(text, request.text, header)
    if options.header:
        return replace(request, text=options)
    columns = {**guess_columns(_records(text, options), now_ms), **request.columns}
    return replace(request, text=options, columns=columns)


def _items_format(path: Path) -> ItemsFormat:
    if plain_name(path).lower().endswith((".xml", ".rss", ".atom")):
        return ItemsFormat.MERCHANT_FEED
    if kind_of(path) is not Format.CSV:
        return ItemsFormat.TABLE
    text = _decoded(_head(path))
    first = {spelled(name.removeprefix("g:")) for name in _records(text, guess_text(text, TextOptions(), True))[0]}
    if {"handle", "variantsku"} <= first:
        return ItemsFormat.SHOPIFY
    return ItemsFormat.MERCHANT_FEED if "id" in first and first & _FEED else ItemsFormat.TABLE


def guess_text(text: str, given: TextOptions, header: bool | None) -> TextOptions:
    """Guesses the separator, and whether there is a header.

    Args:
        text: The beginning of a file.
        given: What the caller named.
        header: Whether there is a header, or None to find out.

    Returns:
        The options with a separator and a decision on the header.
    """
    separator = given.separator or _separator(text)
    options = replace(given, separator=separator)
    return replace(options, header=_has_header(_records(text, options)) if header is None else header)


def _separator(text: str) -> str:
    """The one that cuts most records into the same number of fields, more than one; then the one with more fields."""

    def score(separator: str) -> tuple[float, int]:
        widths = [len(record) for record in _records(text, TextOptions(separator=separator))]
        width = max(set(widths), key=widths.count, default=1)
        return (widths.count(width) / len(widths), width) if width > 1 else (0.0, 1)

    if _names_columns(text):
        return " "
    best = max(_SEPARATORS, key=score)
    return best if score(best)[0] else likeliest_separator(text.split("\n", 1)[0])


def _has_header(records: Sequence[Sequence[str]]) -> bool:
    known = {alias for aliases in LOG_ALIASES.values() for alias in aliases}
    first = records[0] if records else []
    if any(spelled(field) in known for field in first):
        return True
    return not any(_is_number(field) for field in first)


def guess_columns(records: Sequence[Sequence[str]], now_ms: int) -> dict[str, str]:
    """Guesses the roles of columns without names by what they hold; the first that is left is the user, then the item.

    Args:
        records: The first rows of a file without a header.
        now_ms: The time of the import in UTC milliseconds.

    Returns:
        Role → number of the column.
    """
    width = min((len(record) for record in records), default=0)
    values = {str(n + 1): [record[n] for record in records] for n in range(width)}
    found: dict[str, str] = {}
    for column, cells in values.items():
        if "type" not in found and _are_types(cells):
            found["type"] = column
        elif "time" not in found and _are_times(cells, now_ms):
            found["time"] = column
    left = [column for column in values if column not in found.values()]
    found |= dict(zip(("user", "item"), left, strict=False))
    for column in left[2:]:
        if "value" not in found and len(set(values[column])) <= _LEVELS and all(map(_is_number, values[column])):
            found["value"] = column
    return found


def _are_types(cells: Sequence[str]) -> bool:
    words = {cell.strip().lower() for cell in cells}
    return bool(words) and words <= KNOWN_TYPES | ALIASES.keys()


def _are_times(cells: Sequence[str], now_ms: int) -> bool:
    column = pl.Series("time", cells, pl.String)
    try:
        parse_times(column, Place("", pl.int_range(len(cells), eager=True)), now_ms)
    except DataError:
        return False
    return True


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _records(text: str, options: TextOptions) -> list[list[str]]:
    """The first records of a text; the last line of a cut text is left out."""
    separator = options.separator or ","
    if len(separator) > 1:
        text, separator = text.replace(separator, "\x1f"), "\x1f"
    lines = text.splitlines()
    lines = lines[:-1] if len(text) >= _HEAD_BYTES // 4 and len(lines) > 1 else lines
    quote = '"' if options.quote is None else options.quote or None
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator, quotechar=quote, quoting=quoting)
    records: list[list[str]] = []
    try:
        for record in reader:
            if record:
                records.append(record)
            if len(records) == _RECORDS:
                break
    except csv.Error:  # the reader of the format will say what is wrong
        pass
    return records


def _decoded(head: bytes) -> str:
    """The text without the line `sep=;` of Excel, which the reader understands by itself."""
    return re.sub(r"\Asep=.\r?\n", "", head.decode("utf-8-sig", errors="replace"), flags=re.IGNORECASE)


def _head(path: Path) -> bytes:
    """The first bytes of a file, decompressed."""
    if compression_of(path.name) or not path.is_file():
        return read_bytes(path)[:_HEAD_BYTES]
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
