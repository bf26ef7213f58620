"""Reads delimited text (CSV, TSV and others) into a table of strings with line numbers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from model.data.checks import ROW
from model.data.errors import DataError, NothingInsideError
from model.data.files import read_text
from model.data.formats import TextOptions
from model.data.raw_dataset import SourceTable

# The last one is what Hive writes by default.
_SEPARATORS = (",", "\t", ";", "|", "::", "\x01")
# Stands for a separator of several characters while polars reads, which knows single ones only.
_UNIT_SEPARATOR = "\x1f"
_EXCEL = re.compile("sep=(.)", re.IGNORECASE)
_QUOTE_HINT = 'check the quotes and separators; if quotes are part of the text, add --quote ""'


@dataclass(frozen=True)
class _Layout:
    """What is known of a text before its rows are read; `separator` is one character, `skipped` counts lines above."""

    text: str
    separator: str
    quote: str | None
    has_header: bool
    header: list[str]
    header_lines: int
    skipped: int
    path: Path


def read_delimited(path: Path, options: TextOptions | None = None, otherwise: str | None = None) -> SourceTable:
    """Reads a text file; every column is text.

    Args:
        path: The file.
        options: How the text is written.
        otherwise: The encoding of a file that is not UTF-8, where its publisher is known to use it.

    Raises:
        DataError: The file cannot be read, a row has more fields than the first line, a column name is repeated or
            empty twice, or there are no rows.
    """
    return parse_delimited(read_text(path, otherwise), path, options or TextOptions())


def first_record(text: str, options: TextOptions, path: Path) -> tuple[str, bool]:
    """Returns the beginning of a text up to its first record, and whether that is a row rather than a header.

    Raises:
        DataError: It cannot be read.
    """
    layout = _layout(text, options, pinned_quote(text, options) or None, path)
    _, lines = next(_records(layout.text, layout.separator, layout.quote))
    above = text.split("\n", layout.skipped + lines)
    rest = above.pop() if len(above) > layout.skipped + lines else ""
    return text[: len(text) - len(rest)], not layout.has_header


def column_names(text: str, options: TextOptions, path: Path) -> list[str]:
    """Returns the names of the columns of a text that begins like this; without a header they are 1, 2, 3, ….

    Raises:
        DataError: The first record cannot be read.
    """
    layout = _layout(text, options, pinned_quote(text, options) or None, path)
    return layout.header if layout.has_header else [str(number) for number, _ in enumerate(layout.header, 1)]


def pinned_quote(text: str, options: TextOptions) -> str:
    """Returns the quote character by which every part of a text is read, "" for none.

    Args:
        text: The text, at least its first line.
        options: How it is written. A text with tabs is taken to quote; a separator of several characters excludes it.
    """
    if options.quote is not None:
        return options.quote
    separator = options.separator or likeliest_separator(text.lstrip("\r\n").partition("\n")[0])
    return "" if len(separator) > 1 else '"'


def parse_delimited(text: str, path: Path, options: TextOptions, before: int = 0) -> SourceTable:
    """Reads the text of a file, as `read_delimited` does.

    Args:
        text: The text.
        path: The file.
        options: How the text is written.
        before: Number of lines of the file that are not in the text.

    Raises:
        DataError: As `read_delimited`.
    """
    if before:
        table = parse_delimited(text, path, options)
        table.rows = table.rows.with_columns(pl.col(ROW) + before)
        return table
    if options.quote is not None:
        return _read(_layout(text, options, options.quote or None, path))
    layout = _layout(text, options, '"', path)
    try:
        return _read(layout)
    except DataError as error:
        if layout.separator != "\t":
            raise
        try:  # programs that write tabs often do not quote
            table = _read(_layout(text, options, None, path))
        except DataError:
            raise error from None
    table.notes.append(f"{path.name} read without quoting: its quotes are part of the text")
    return table


def _read(layout: _Layout) -> SourceTable:
    try:
        rows = pl.read_csv(
            layout.text.encode(),
            separator=layout.separator,
            quote_char=layout.quote,
            has_header=layout.has_header,
            infer_schema=False,
            null_values=[""],
        )
    except pl.exceptions.PolarsError as error:
        raise _explain(layout, error) from error
    if rows.is_empty():
        raise NothingInsideError(
            "there is a header but no row", where=str(layout.path), fix="write the file again, with its rows"
        )
    if not layout.has_header:
        rows = rows.rename({name: str(number) for number, name in enumerate(rows.columns, 1)})
    return SourceTable(rows.with_columns(_line_numbers(rows, layout)), str(layout.path))


def _line_numbers(rows: pl.DataFrame, layout: _Layout) -> pl.Series:
    """[rows] the line on which each row begins; quoted fields may hold line ends."""
    first = layout.skipped + layout.header_lines + 1
    numbers = pl.Series(ROW, range(first, first + rows.height), dtype=pl.Int64)
    line_ends = layout.text.count("\n") - layout.text.endswith("\n")
    if layout.quote is None or line_ends < rows.height + layout.header_lines:
        return numbers
    inside = rows.select(pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True).fill_null(0))).to_series()
    return (numbers + inside.cast(pl.Int64).cum_sum().shift(1, fill_value=0)).alias(ROW)


def _layout(text: str, options: TextOptions, quote: str | None, path: Path) -> _Layout:
    if text.lstrip().startswith(('{"', "[{")):
        raise DataError(
            "expected a table of text, but this looks like JSON",
            where=str(path),
            fix="use --format jsonl for a log; give any other table a name that ends in .jsonl",
        )
    whole, text = text, text.lstrip("\r\n")
    skipped = whole.count("\n", 0, len(whole) - len(text))
    first, _, rest = text.partition("\n")
    first = first.rstrip("\r")
    if named := _EXCEL.fullmatch(first):  # Excel reads and writes a line that names the separator
        options = replace(options, separator=options.separator or named.group(1))
        text, skipped, first = rest, skipped + 1, rest.partition("\n")[0].rstrip("\r")
    if "\r" in first:
        raise DataError(
            "the lines end in carriage returns only",
            where=f"{path}, line 1",
            fix=f"convert the line ends: tr '\\r' '\\n' < {path.name} > lines-{path.name}",
        )
    separator = options.separator or likeliest_separator(first, quote)
    if len(separator) > 1:
        text, separator = text.replace(separator, _UNIT_SEPARATOR), _UNIT_SEPARATOR
        quote = quote if options.quote else None
    if quote and f"\\{quote}" in text:
        text = _double_escaped_quotes(text, separator, quote)
    try:
        header, header_lines = next(_records(text, separator, quote))
    except (csv.Error, StopIteration) as error:
        raise DataError(f"the first line cannot be read: {error}", where=f"{path}, line 1", fix=_QUOTE_HINT) from error
    if options.header:
        _refuse_repeated_names(header, separator, path)
    header_lines = header_lines if options.header else 0
    return _Layout(text, separator, quote, options.header, header, header_lines, skipped, path)


def likeliest_separator(line: str, quote: str | None = '"') -> str:
    """Returns the one of `,`, tab, `;`, `|`, `::` and Ctrl-A that a line holds most often outside quotes."""
    bare = re.sub(f"{quote}[^{quote}]*{quote}", "", line) if quote else line
    return max(_SEPARATORS, key=bare.count)


def _double_escaped_quotes(text: str, separator: str, quote: str) -> str:
    """Rewrites quotes behind a backslash (as MySQL writes them) as doubled ones, which is what the parser reads.

    Only where a quoted field goes on behind such a quote: elsewhere the backslash ends the field, like a folder's name.
    """
    end = re.escape(separator)
    escaped = rf"\\{quote}(?!{end}|\r?\n|\Z|{quote})"
    if not re.search(escaped, text):
        return text
    field = re.compile(
        rf"(?:(?<={end})|^){quote}((?:[^{quote}\\]|{quote}{quote}|\\.)*){quote}(?={end}|\r?$)", re.MULTILINE | re.DOTALL
    )

    def doubled(match: re.Match[str]) -> str:
        inside = match.group(1)
        if "\\" not in inside:
            return match.group(0)
        return quote + re.sub(r"\\(.)", lambda m: m.group(1) * 2 if m.group(1) == quote else m.group(0), inside) + quote

    return field.sub(doubled, text)


def _refuse_repeated_names(header: list[str], separator: str, path: Path) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if not repeated:
        return
    named = [name for name in repeated if name]
    if named:
        raise DataError(
            f"column names are repeated in the header: {', '.join(named)}",
            where=f"{path}, line 1",
            fix="give every column its own name; if the first line is a row already, add --no-header",
        )
    aligned = "" in header[1:-1] and separator == " "
    unnamed = [str(position) for position, name in enumerate(header, 1) if not name]
    raise DataError(
        f"the header leaves {len(unnamed)} columns without a name",
        where=f"{path}, line 1, columns {', '.join(unnamed)}",
        fix=f"write one separator between two fields: sed -E 's/ +/,/g' {path.name} > commas-{path.name}"
        if aligned
        else "give every column its own name; pandas omits its unnamed index with to_csv(…, index=False)",
    )


def _records(text: str, separator: str, quote: str | None) -> Iterator[tuple[list[str], int]]:
    """Yields the fields of each record and its last line, with the slow parser of the standard library."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    lines = csv.reader(io.StringIO(text), delimiter=separator, quotechar=quote, quoting=quoting)
    for fields in lines:
        yield fields, lines.line_num


def _explain(layout: _Layout, error: Exception) -> DataError:
    """Finds the first line that does not fit."""
    named = "header" if layout.has_header else "first line"
    begun, line = 0, layout.skipped
    try:
        for fields, end in _records(layout.text, layout.separator, layout.quote):
            begun, line = line + 1, end + layout.skipped
            if len(fields) > len(layout.header):
                return DataError(
                    f"a row has {len(fields)} fields, but the {named} has {len(layout.header)}",
                    where=f"{layout.path}, line {line}",
                    fix=f"quote fields that hold the separator {layout.separator!r}, and name every column",
                )
    except csv.Error as problem:
        error = problem
    if layout.quote and line > begun and line - layout.skipped > layout.text.rstrip().count("\n"):
        return DataError(
            "a quote is not closed before the end of the file",
            where=f"{layout.path}, line {begun}",
            fix=_QUOTE_HINT,
        )
    summary = (str(error).splitlines() or ["unreadable"])[0]
    return DataError(f"the rows cannot be read: {summary}", where=str(layout.path), fix=_QUOTE_HINT)
