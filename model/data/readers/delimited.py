"""Reads delimited text (CSV, TSV) into a table of strings with line numbers."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal

import polars as pl

from model.data.errors import DataError
from model.data.files import read_text
from model.data.raw_dataset import SourceTable, numbered

_SEPARATORS = (",", "\t", ";", "|")


def read_delimited(path: Path, separator: str | None = None, quote: str | None = '"') -> SourceTable:
    """Reads a file with a header; every column is text.

    Args:
        path: The file.
        separator: The separator, by default the one of `,`, tab, `;` and `|` that the header holds most often.
        quote: The quote character, or None if fields are never quoted.

    Raises:
        DataError: The file cannot be read, a row has more fields than the header, a column name is repeated or
            empty twice, or there are no rows.
    """
    text = read_text(path)
    header_line = text.split("\n", 1)[0].rstrip("\r")
    separator = separator or max(_SEPARATORS, key=header_line.count)
    header = _header(header_line, separator, quote, path)
    _refuse_repeated_names(header, path)
    try:
        rows = pl.read_csv(text.encode(), separator=separator, quote_char=quote, infer_schema=False, null_values=[""])
    except pl.exceptions.PolarsError as error:
        raise _explain(text, separator, quote, header, path, error) from error
    if rows.is_empty():
        raise DataError("there is a header but no row", where=str(path), fix="write the file again, with its rows")
    return SourceTable(numbered(rows), str(path))


def _refuse_repeated_names(header: list[str], path: Path) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if not repeated:
        return
    named = [name for name in repeated if name]
    if named:
        raise DataError(
            f"column names are repeated in the header: {', '.join(named)}",
            where=f"{path}, line 1",
            fix="give every column its own name",
        )
    unnamed = [str(position) for position, name in enumerate(header, 1) if not name]
    raise DataError(
        f"the header leaves {len(unnamed)} columns without a name",
        where=f"{path}, line 1, columns {', '.join(unnamed)}",
        fix="give every column its own name; pandas omits its unnamed index with to_csv(…, index=False)",
    )


def _header(line: str, separator: str, quote: str | None, path: Path) -> list[str]:
    if "\r" in line:
        raise DataError(
            "the lines end in carriage returns only",
            where=f"{path}, line 1",
            fix=f"convert the line ends: tr '\\r' '\\n' < {path.name} > lines-{path.name}",
        )
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return next(csv.reader([line], delimiter=separator, quotechar=quote, quoting=quoting))


def _explain(
    text: str, separator: str, quote: str | None, header: list[str], path: Path, error: Exception
) -> DataError:
    """Finds the first line that does not fit with the slow parser of the standard library."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    lines = csv.reader(io.StringIO(text), delimiter=separator, quotechar=quote, quoting=quoting)
    try:
        for fields in lines:
            if len(fields) > len(header):
                return DataError(
                    f"a row has {len(fields)} fields, but the header has {len(header)}",
                    where=f"{path}, line {lines.line_num}",
                    fix=f"quote fields that hold the separator {separator!r}",
                )
    except csv.Error as problem:
        error = problem
    summary = (str(error).splitlines() or ["unreadable"])[0]
    return DataError(f"the rows cannot be read: {summary}", where=str(path), fix="check the quotes and separators")
