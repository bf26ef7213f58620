"""`gpt4rec data import --guess`: shows what was understood of a source, and asks before it is imported."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.cli.steps import steps
from model.data.checks import ROW
from model.data.columns import LOG_COLUMNS
from model.data.compression import compression_of
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest, ItemsFormat
from model.data.guess import completed, guess_format
from model.data.importing import read_everything
from model.data.orders import as_order
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.sources import stdin_spooled
from model.data.times import parse_times
from service.cli.messages import complain

ROWS = 10
_SAMPLE = 1000
_NAMES = {"\t": "tab", "\x01": "ctrl-a", " ": "blank"}


def guessed(request: ImportRequest, form: Format | None, header: bool | None) -> tuple[ImportRequest, RawDataset]:
    """Reads a source whose form is not, or not wholly, known.

    Args:
        request: What the caller named.
        form: The format, or None to find it out.
        header: Whether the first line names the columns, or None to find it out.

    Returns:
        The complete request, and what its reader returned.

    Raises:
        DataError: A file is missing, damaged, or cannot be understood.
        BadParameter: The options do not go with the format that was found.
    """
    now_ms = time.time_ns() // 1_000_000
    with steps(Console(stderr=True), "looking at the source") as step, stdin_spooled(request.sources) as (first, *more):
        found = form or guess_format(first, now_ms)
        read = replace(request, source=first, more=tuple(more), format=found)
        if misuse := read.misuse():
            raise typer.BadParameter(f"SOURCE looks like {found}; {misuse}")
        read = completed(read, header, now_ms)
        raw = read_everything(read, step, now_ms)
    return replace(read, source=request.source, more=request.more), raw


def show(request: ImportRequest, raw: RawDataset, out: Path, console: Console) -> None:
    """Prints the format, the roles and types of the columns, the first rows, and the command that says the same."""
    understood = Table(show_header=False, title="understood as", title_justify="left")
    understood.add_column(style="bold", no_wrap=True)
    understood.add_column(overflow="fold")
    for name, value in _facts(request, raw):
        understood.add_row(name, escape(value))
    console.print(understood)
    rows = raw.log.rows.drop(ROW, strict=False).head(ROWS)
    first = Table(title=f"the first {rows.height} of {raw.log.rows.height:,} rows", title_justify="left")
    for name in rows.columns:
        first.add_column(name, overflow="fold")
    for row in rows.iter_rows():
        first.add_row(*("" if value is None else escape(str(value)) for value in row))
    console.print(first)
    console.print("the same without --guess:", highlight=False)
    console.print(f"  {command_of(request, out)}", highlight=False, markup=False, soft_wrap=True)


def ask(yes: bool, *, err: bool) -> None:
    """Asks whether to import what was shown.

    Raises:
        Exit: Code 1 if the answer is no, 2 if there is no terminal to ask and `--yes` was not given.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        complain("nothing was imported: there is no terminal to ask; add --yes to import this")
        raise typer.Exit(2)
    if not typer.confirm("Import this?", err=err):
        raise typer.Exit(1)


def _facts(request: ImportRequest, raw: RawDataset) -> Iterator[tuple[str, str]]:
    yield "format", str(request.format)
    packed = compression_of(request.source)
    if packed:
        yield "compression", packed.name
    if raw.log.files:
        yield "files", f"{len(raw.log.files):,}"
    if request.format is Format.CSV:
        separator = request.text.separator or ","
        yield "separator", _NAMES.get(separator, separator)
        yield (
            "first line",
            "names the columns" if request.text.header else "is a row; the columns are called 1, 2, 3, …",
        )
    for role, column in LOG_COLUMNS.items():
        if column in raw.log.rows.columns:
            yield role, f"column {raw.log.name(column)!r}, {_kind(raw.log, column)}"
    for name, table in (("items", raw.items), ("users", raw.users)):
        if table is not None:
            columns = [table.name(column) for column in table.rows.columns if column != ROW]
            yield name, f"{table.rows.height:,} rows; columns {', '.join(columns)}"
    for note in raw.findings.notes:
        yield "note", note


def _kind(table: SourceTable, column: str) -> str:
    values = table.rows[column].head(_SAMPLE)
    if column == "timestamp":
        return _time_kind(table.rows.head(_SAMPLE), table.file)
    if values.dtype != pl.String:
        return str(values.dtype)
    known = values.drop_nulls()
    if len(known) and known.str.contains(r"^[+-]?\d+$").all():
        return "whole numbers"
    return "numbers" if len(known) and known.cast(pl.Float64, strict=False).null_count() == 0 else "text"


def _time_kind(rows: pl.DataFrame, file: str) -> str:
    if as_order(rows["timestamp"], rows["user_id"]) is not None:
        return "counts the events, so it is their order"
    try:
        return parse_times(rows["timestamp"], SourceTable(rows, file).place(), time.time_ns() // 1_000_000).read_as
    except DataError as error:
        return error.what


def command_of(request: ImportRequest, out: Path) -> str:
    """Writes the command that imports the same without a guess."""
    words = ["gpt4rec", "data", "import", *request.sources, "--format", str(request.format)]
    if request.format is Format.CSV:
        words += ["--separator", _NAMES.get(request.text.separator or ",", request.text.separator or ",")]
        words += [] if request.text.header else ["--no-header"]
        words += [] if request.text.quote is None else ["--quote", request.text.quote]
    rules = request.rules
    for flag, pairs in (
        ("--map", request.columns),
        ("--items-map", request.items_columns),
        ("--type-map", rules.types),
    ):
        words += [flag, ",".join(f"{name}={value}" for name, value in pairs.items())] if pairs else []
    files = {"--items": request.items, "--users": request.users, "--attributes": request.attributes}
    for flag, file in (files | {"--times": request.times, "--vectors": request.vectors}).items():
        words += [flag, str(file)] if file else []
    if request.items_format is not ItemsFormat.TABLE:
        words += ["--items-format", str(request.items_format)]
    for flag, given in (("--decimal", rules.decimal), ("--date-format", request.date_format)):
        words += [flag, given] if given else []
    for flag, several in (("--null", rules.null_words), ("--allow-loss", rules.allow_loss)):
        words += [word for value in sorted(several) for word in (flag, value)]
    return shlex.join([*words, "--out", str(out)])
