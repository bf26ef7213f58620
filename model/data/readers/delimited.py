"""Delimited text → a table of strings with line numbers."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal

import polars as pl

from model.data.assemble import Table, numbered
from model.data.errors import DataError
from model.data.files import read_text

_SEPARATORS = (",", "\t", ";", "|")


def read_delimited(path: Path, separator: str | None = None, quote: str | None = '"') -> Table:
    """A file with a header line, every column as text. The separator is told from the header unless given.

    Raises `DataError` for rows with more fields than the header, repeated column names, or no rows at all.
    """
    text = read_text(path)
    header_line = text.split("\n", 1)[0].rstrip("\r")
    separator = separator or max(_SEPARATORS, key=header_line.count)
    header = _header(header_line, separator, quote, path)
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(
            f"column names are repeated in the header: {', '.join(repeated)}",
            where=f"{path}, line 1",
            mend="give every column its own name",
        )
    try:
        rows = pl.read_csv(text.encode(), separator=separator, quote_char=quote, infer_schema=False, null_values=[""])
    except pl.exceptions.PolarsError as error:
        raise _explain(text, separator, quote, header, path, error) from error
    if rows.is_empty():
        raise DataError("there is a header but no row", where=str(path), mend="write the file again")
    return Table(numbered(rows), str(path))


def _header(line: str, separator: str, quote: str | None, path: Path) -> list[str]:
    if "\r" in line:
        raise DataError(
            "the lines end in carriage returns only",
            where=f"{path}, line 1",
            mend=f"tr '\\r' '\\n' < {path.name} > lines-{path.name}",
        )
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return next(csv.reader([line], delimiter=separator, quotechar=quote, quoting=quoting))


def _explain(
    text: str, separator: str, quote: str | None, header: list[str], path: Path, error: Exception
) -> DataError:
    """The first line that does not fit, found with the slow parser."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    lines = csv.reader(io.StringIO(text), delimiter=separator, quotechar=quote, quoting=quoting)
    try:
        for fields in lines:
            if len(fields) > len(header):
                return DataError(
                    f"a row has {len(fields)} fields, the header {len(header)}",
                    where=f"{path}, line {lines.line_num}",
                    mend=f"quote fields that hold the separator {separator!r}",
                )
    except csv.Error as problem:
        error = problem
    summary = (str(error).splitlines() or ["unreadable"])[0]
    return DataError(f"the rows cannot be read: {summary}", where=str(path), mend="check quotes and separators")
