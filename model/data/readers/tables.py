"""Reads tables of any kind: one file by the ending of its name, or all files of a log as one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import RENAME_COLUMNS, ROW, listed_columns, require_columns
from model.data.column_types import LIST_KINDS, TEXT_KINDS, as_text, as_text_lists, kind, require
from model.data.columns import spelled
from model.data.compression import plain_name
from model.data.errors import FILE_STEP, DataError, NothingInsideError
from model.data.files import read_parquet
from model.data.formats import Format, TextOptions
from model.data.raw_dataset import SourceTable, numbered, split_tags
from model.data.readers.delimited import read_delimited
from model.data.readers.json_tables import read_json_table
from model.data.sources import SourceFile

# Columns of `picked` that may hold lists.
_LISTS = ("category", "attributes", "tags")
_PARQUET = (".parquet", ".pq", ".parq")
_JSON = (".jsonl", ".ndjson", ".json")


def kind_of(path: Path) -> Format:
    """Returns the kind of a table by the ending of its name: parquet, JSON, else delimited text."""
    name = plain_name(path).lower()
    if name.endswith(_PARQUET):
        return Format.PARQUET
    return Format.JSONL if name.endswith(_JSON) else Format.CSV


def read_table(path: Path, kind: Format | None = None, text: TextOptions | None = None) -> SourceTable:
    """Reads a table.

    Args:
        path: The file.
        kind: csv, parquet or jsonl; by default what the ending of the name says.
        text: How delimited text is written.

    Raises:
        DataError: The file cannot be read.
    """
    kind = kind or kind_of(path)
    if kind is Format.PARQUET:
        return SourceTable(numbered(read_parquet(path), first=1), str(path), "row")
    return read_json_table(path) if kind is Format.JSONL else read_delimited(path, text)


def read_files(files: Sequence[SourceFile], kind: Format, text: TextOptions | None = None) -> SourceTable:
    """Reads the files of a log as one table, in their order; the values of partitions become columns.

    Args:
        files: The files, at least one.
        kind: csv, parquet or jsonl.
        text: How delimited text is written.

    Raises:
        DataError: A file cannot be read, or the files do not have the same columns.
    """
    read = _read_each(files, kind, text)
    tables = [table for table, _ in read]
    _refuse_strangers(tables)
    for table, file in read:
        new = {name: value for name, value in file.partitions.items() if name not in table.rows.columns}
        table.rows = table.rows.with_columns(pl.lit(value, pl.String).alias(name) for name, value in new.items())
    joined = tables[0] if len(tables) == 1 else _joined(tables)
    return replace(joined, partitions=frozenset(name for file in files for name in file.partitions))


def _read_each(
    files: Sequence[SourceFile], kind: Format, text: TextOptions | None
) -> list[tuple[SourceTable, SourceFile]]:
    """Reads the files; of several text files, those without a row are left out, as Spark writes such parts."""
    read: list[tuple[SourceTable, SourceFile]] = []
    empty: list[NothingInsideError] = []
    for file in files:
        try:
            read.append((read_table(file.path, kind, text), file))
        except NothingInsideError as error:
            if len(files) == 1 or kind is Format.PARQUET:
                raise
            empty.append(error)
    if not read:
        raise empty[0]
    if empty:
        named = ", ".join(Path(error.where or "").name for error in empty[:3]) + (", …" if empty[3:] else "")
        read[0][0].notes.append(f"{len(empty)} of {len(files)} files hold no row and are left out: {named}")
    return read


def _refuse_strangers(tables: list[SourceTable]) -> None:
    """Raises `DataError` for a file that has no column of the first one, as files without a header do."""
    first = set(tables[0].rows.columns) - {ROW}
    for table in tables[1:]:
        if not first & set(table.rows.columns):
            raise DataError(
                f"the files have no column in common: {', '.join(table.rows.columns[:5])} …",
                where=f"{table.file} and {tables[0].file}",
                fix="import files of one kind together; add --no-header if their first line is a row already",
            )


def _joined(tables: list[SourceTable]) -> SourceTable:
    names = tuple(table.file for table in tables)
    file = f"{names[0]} and {len(names) - 1} more"
    notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    counts = Counter(name for table in tables for name in table.rows.columns)
    notes += [
        f"{len(tables) - count} of {len(tables)} files lack the column {name}; it is empty in their rows"
        for name, count in counts.items()
        if count < len(tables)
    ]
    try:
        rows = pl.concat(
            [table.rows.with_columns(pl.col(ROW) + n * FILE_STEP) for n, table in enumerate(tables)],
            how="diagonal_relaxed",
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"a column has types that do not go together: {error}",
            where=file,
            fix="write the column as one type in every file",
        ) from error
    return SourceTable(rows, file, tables[0].unit, files=names, notes=notes)


def picked(table: SourceTable, wanted: Mapping[str, Sequence[str]], needed: Sequence[str]) -> SourceTable:
    """Selects the columns of a format whose publisher named them.

    Args:
        table: The table as read.
        wanted: Our column → its names in the format, as `spelled` writes them; the first that is there counts.
        needed: Our columns that have to be there.

    Returns:
        The table with our columns alone; those that it lacks and that are not needed are left out.

    Raises:
        DataError: A column that is needed is absent, or holds objects, or lists where one value is meant.
    """
    spellings = {spelled(name.removeprefix("g:")): name for name in table.rows.columns if name != ROW}
    found = {ours: spellings[name] for ours, names in wanted.items() for name in names[::-1] if name in spellings}
    looked_for = {ours: found.get(ours, names[0]) for ours, names in wanted.items() if ours in found or ours in needed}
    require_columns(list(spellings.values()), looked_for, table.file, needed, RENAME_COLUMNS)
    rows = table.rows.select(ROW, *(pl.col(name).alias(ours) for ours, name in found.items()))
    chosen = replace(table, rows=rows, names=found, notes=[*table.notes])
    for ours in found:
        require(rows[ours], chosen.place(ours), "values", LIST_KINDS if ours in _LISTS else TEXT_KINDS)
    unused = [name for name in table.rows.columns if name not in (*found.values(), ROW)]
    if unused:
        chosen.notes.append(f"columns of {Path(table.file).name} that are not used: {listed_columns(unused)}")
    return chosen


def tags_of(table: SourceTable, column: str, separator: str) -> pl.Series:
    """Reads a column of tags: lists, or text with a separator.

    Args:
        table: The table, after `picked`.
        column: Our name of the column.
        separator: The text between two tags.

    Raises:
        DataError: A list holds bytes that are not UTF-8 text.
    """
    values = table.rows[column]
    if kind(values.dtype) == "list":
        return as_text_lists(values, table.place(column), "values").alias(column)
    return split_tags(as_text(values), separator)


def beside(source: Path, *names: str) -> Path | None:
    """Returns the first file of a folder that has one of the names, compressed or not, or None."""
    for name in names:
        for file in sorted(source.glob("*")):
            if plain_name(file).lower() == name:
                return file
    return None


def log_file(source: Path, *names: str) -> Path:
    """Returns SOURCE itself if it is a file, or the log in that folder.

    Raises:
        DataError: The folder has no file with one of the names.
    """
    if not source.is_dir():
        return source
    file = beside(source, *names)
    if file is None:
        raise DataError(f"the folder lacks {' or '.join(names)}", where=str(source), fix="name the folder or the file")
    return file


def zone_joined(column: str) -> pl.Expr:
    """Writes times such as `2025-03-01 10:12:44 +0100 CET` without the blank in front of the zone and its name."""
    return pl.col(column).cast(pl.String).str.replace(r" ([+-]\d{2}:?\d{2})(?: \w+)?$", "$1")
