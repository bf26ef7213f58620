"""The formats `csv`, `parquet` and `jsonl`: a log with one event a row, in one file or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import NAME_LOG_COLUMNS, ROW, Findings, require_columns
from model.data.columns import LOG_ALIASES, LOG_COLUMNS, RATINGS, find_columns, found_by_alias, spelled
from model.data.compression import plain_name
from model.data.formats import Format, TextOptions
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.readers.tables import read_files
from model.data.sources import SourceFile


def read_log(
    files: Sequence[SourceFile],
    kind: Format,
    columns: Mapping[str, str],
    text: TextOptions | None = None,
) -> RawDataset:
    """Reads a log.

    Args:
        files: The files, at least one.
        kind: csv, parquet or jsonl.
        columns: Role → column name. Other roles are looked for under their default names and aliases.
        text: How delimited text is written.

    Raises:
        DataError: A file cannot be read, or a column that is needed or named is absent.
    """
    raw = log_of(read_files(files, kind, text), columns)
    raw.name = plain_name(files[0].path).rsplit(".", 1)[0]
    raw.source = f"{kind}:{files[0].path.name}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    return raw


def log_of(table: SourceTable, columns: Mapping[str, str]) -> RawDataset:
    """Gives the columns of a log their roles.

    Raises:
        DataError: A column that is needed or named is absent, or several may have the same role.
    """
    present = [name for name in table.rows.columns if name != ROW]
    named = {role: column for role, column in columns.items() if role in LOG_COLUMNS}
    found = find_columns(present, named, LOG_COLUMNS, LOG_ALIASES, table.file, table.partitions)
    wanted = {"user": "user_id", "item": "item_id"} | found
    fix = NAME_LOG_COLUMNS
    if table.unit == "line":
        fix += "; if the first line is a row already, add --no-header"
    require_columns(present, wanted, table.file, ["user", "item"], fix)
    rows = table.rows.select([pl.col(c).alias(LOG_COLUMNS[r]) for r, c in wanted.items()] + [pl.col(ROW)])
    findings = Findings()
    if guessed := found_by_alias(found, named, LOG_COLUMNS):
        findings.note(f"columns found by their names: {guessed}")
    unused = [name for name in present if name not in wanted.values()]
    if unused:
        findings.note(f"columns that are not used: {', '.join(unused)}")
    default_type = "view"
    if spelled(wanted.get("value", "")) in RATINGS and "type" not in wanted:
        default_type = "rating"
    elif "quantity" in wanted:
        default_type = "purchase"
    log = replace(table, rows=rows, names={LOG_COLUMNS[role]: column for role, column in wanted.items()})
    return RawDataset(Path(table.file).stem, table.file, log, default_type=default_type, findings=findings)
