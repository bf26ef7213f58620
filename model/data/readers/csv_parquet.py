"""The formats `csv` and `parquet`: a log with one event a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import ROW, Findings, require_columns
from model.data.files import read_parquet
from model.data.formats import LOG_COLUMNS
from model.data.raw_dataset import RawDataset, SourceTable, numbered
from model.data.readers.delimited import read_delimited


def read_log(path: Path, columns: Mapping[str, str], *, parquet: bool) -> RawDataset:
    """Reads a log from one table.

    Args:
        path: The file.
        columns: Role → column name. Other roles are looked for under their default names (`LOG_COLUMNS`).
        parquet: The file is parquet, not delimited text.

    Raises:
        DataError: The file cannot be read, or a column that is needed or named is absent.
    """
    table = SourceTable(numbered(read_parquet(path), first=1), str(path), "row") if parquet else read_delimited(path)
    present = [name for name in table.rows.columns if name != ROW]
    named = {role: column for role, column in columns.items() if role in LOG_COLUMNS}
    optional = {role: name for role, name in LOG_COLUMNS.items() if name in present}
    wanted = {"user": "user_id", "item": "item_id", **optional, **named}
    require_columns(present, wanted, table.file, ["user", "item"])
    rows = table.rows.select([pl.col(c).alias(LOG_COLUMNS[r]) for r, c in wanted.items()] + [pl.col(ROW)])
    findings = Findings()
    unused = [name for name in present if name not in wanted.values()]
    if unused:
        findings.note(f"columns that are not used: {', '.join(unused)}")
    names = {LOG_COLUMNS[role]: column for role, column in wanted.items()}
    name = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    kind = "parquet" if parquet else "csv"
    return RawDataset(name, f"{kind}:{path.name}", replace(table, rows=rows, names=names), findings=findings)
