"""Reads JSON lines, and a JSON array of objects, into a table with line (or entry) numbers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl

from model.data.checks import ROW
from model.data.errors import DataError
from model.data.files import read_text
from model.data.raw_dataset import SourceTable

_ONE_TYPE = "give a field the same type on every line"


def read_json_table(path: Path) -> SourceTable:
    """Reads one JSON object a line, or one array of objects.

    Raises:
        DataError: The file cannot be read, is not JSON, holds anything other than objects, or no object.
    """
    text = read_text(path)
    table = _array(text, path) if text.lstrip().startswith("[") else _lines(text, path)
    if table.rows.width < 2 or table.rows.is_empty():
        raise DataError("there is no object with a field", where=str(path), fix="write one JSON object for each row")
    return table


def parse_json_lines(text: str, path: Path, before: int = 0) -> SourceTable:
    """Reads a part of a file of one JSON object a line.

    Args:
        text: The part.
        path: The file.
        before: Number of lines in front of the part.

    Raises:
        DataError: As `read_json_table`.
    """
    table = _lines(text, path)
    table.rows = table.rows.with_columns(pl.col(ROW) + before)
    return table


def _lines(text: str, path: Path) -> SourceTable:
    """Reads the lines with polars; if that fails, line by line to find the one that is wrong."""
    try:
        rows = pl.read_ndjson(io.BytesIO(text.encode()), infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError):
        return _line_by_line(text, path)
    lines = text.rstrip().split("\n")
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    if rows.height != len(numbers) or ROW in rows.columns:
        return _line_by_line(text, path)
    return SourceTable(rows.with_columns(pl.Series(ROW, numbers, pl.Int64)), str(path))


def _line_by_line(text: str, path: Path) -> SourceTable:
    objects: list[dict[str, object]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            what, column = getattr(error, "msg", str(error)), getattr(error, "colno", 1)
            raise DataError(
                f"a line is not valid JSON: {what}",
                where=f"{path}, line {number}, column {column}",
                fix="write one JSON object on each line, or one array of objects",
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                "a line is not a JSON object",
                where=f"{path}, line {number}",
                fix="write one JSON object on each line, or one array of objects",
            )
        objects.append(row)
        numbers.append(number)
    return SourceTable(_table(objects, numbers, path), str(path))


def _array(text: str, path: Path) -> SourceTable:
    try:
        objects = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "\n" in text.strip() and getattr(error, "msg", "") == "Extra data":
            return _line_by_line(text, path)  # says which line is no object
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        raise DataError(
            f"the array is not valid JSON: {getattr(error, 'msg', error)}",
            where=f"{path}, line {line}, column {column}",
            fix="write [{…}, {…}, …]",
        ) from error
    wrong = next((number for number, row in enumerate(objects, 1) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise DataError(
            "an entry of the array is not a JSON object", where=f"{path}, entry {wrong}", fix="write [{…}, {…}, …]"
        )
    numbers = list(range(1, len(objects) + 1))
    return SourceTable(_table(objects, numbers, path), str(path), "entry")


def _table(objects: list[dict[str, object]], numbers: list[int], path: Path) -> pl.DataFrame:
    try:
        table = pl.DataFrame(objects, infer_schema_length=None, strict=False)
        return table.with_columns(pl.Series(ROW, numbers, pl.Int64))
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the lines do not form a table: {error}", where=str(path), fix=_ONE_TYPE) from error
