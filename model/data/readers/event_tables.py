"""The formats `csv`, `parquet` and `jsonl`: a log with one event a row, in one file or several."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import NAME_LOG_COLUMNS, ROW, Findings, listed_columns, require_columns
from model.data.columns import LOG_ALIASES, LOG_COLUMNS, RATINGS, find_columns, found_by_alias, spelled
from model.data.compression import plain_name
from model.data.errors import DataError
from model.data.formats import Format, TextOptions
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.readers.tables import read_files
from model.data.sources import SourceFile
from model.data.times import Place, parse_times

# Kind → what may be meant where a log lacks its columns.
_FIXES = {
    Format.CSV: "; if the first line is a row already, add --no-header",
    Format.JSONL: "; fields inside of other objects are not read: write one flat object for each event, with jq -c",
}
_MOMENTS = ("time", "date", "day", "ts", "dt")
_SAMPLE = 100


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
    raw = log_of(read_files(files, kind, text), columns, _FIXES.get(kind, ""))
    raw.name = plain_name(files[0].path).rsplit(".", 1)[0]
    raw.source = f"{kind}:{files[0].path.name}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    return raw


def log_of(table: SourceTable, columns: Mapping[str, str], fix: str = "") -> RawDataset:
    """Gives the columns of a log their roles.

    Args:
        table: The log as read.
        columns: Role → column name, as the user named them.
        fix: What may be meant where a column is absent, behind the advice to name it.

    Raises:
        DataError: A column that is needed or named is absent, or several may have the same role.
    """
    present = [name for name in table.rows.columns if name != ROW]
    named = {role: column for role, column in columns.items() if role in LOG_COLUMNS}
    found = find_columns(present, named, LOG_COLUMNS, LOG_ALIASES, table.file, table.partitions)
    wanted = {"user": "user_id", "item": "item_id"} | found
    if len(present) == 1 and len(present[0].split()) > 1:
        fix += "; if blanks stand between the fields, add --separator ' '"
    if "item" in found and "user" not in found:
        fix += "; a table of items goes beside a log, with --items"
    require_columns(present, wanted, table.file, ["user", "item"], NAME_LOG_COLUMNS + fix)
    rows = table.rows.select([pl.col(c).alias(LOG_COLUMNS[r]) for r, c in wanted.items()] + [pl.col(ROW)])
    findings = Findings()
    if guessed := found_by_alias(found, named, LOG_COLUMNS):
        findings.note(f"columns found by their names: {guessed}")
    unused = [name for name in present if name not in wanted.values()]
    if unused:
        findings.note(f"columns that are not used: {listed_columns(unused)}")
    if "time" not in wanted and "time" not in columns and (times := _likely_times(table.rows.select(unused))):
        findings.note(f"column {times!r} may hold the times; to use them, add --map time={times}")
    default_type = "view"
    if spelled(wanted.get("value", "")) in RATINGS and "type" not in wanted:
        default_type = "rating"
    elif "quantity" in wanted:
        default_type = "purchase"
    log = replace(table, rows=rows, names={LOG_COLUMNS[role]: column for role, column in wanted.items()})
    return RawDataset(Path(table.file).stem, table.file, log, default_type=default_type, findings=findings)


def _likely_times(rows: pl.DataFrame) -> str | None:
    """Returns the first column that can be read as times; numbers count only under a name of times."""
    for column in rows:
        sample = column.drop_nulls().head(_SAMPLE)
        place = Place("", pl.int_range(len(sample), eager=True))
        try:
            read_as = parse_times(sample, place, sys.maxsize // 2**20).read_as
        except DataError:
            continue
        if not read_as.startswith("epoch") or spelled(column.name).endswith(_MOMENTS):
            return column.name
    return None
