"""Cuts the files of a log into pieces that are read on their own, each with the header of its file.

A piece is read by the readers that read whole files, so a log in pieces has the rows of a log in one. Text is cut
behind line ends that no quoted field holds. The numbers of the lines go on from piece to piece, so that messages name
the right ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import polars as pl

from model.data.compression import compression_in, compression_of, opened
from model.data.errors import DataError, NothingInsideError
from model.data.files import looks_like, read_parquet_rows
from model.data.formats import Format, TextOptions
from model.data.raw_dataset import SourceTable, numbered
from model.data.readers.delimited import first_record, parse_delimited, pinned_quote
from model.data.readers.json_tables import parse_json_lines
from model.data.sources import SourceFile

# Plain bytes of a piece of text, and rows of a piece of parquet.
PIECE_BYTES, PIECE_ROWS = 32 << 20, 1 << 20
# What is looked at of a file for its header.
_HEAD = 1 << 20
_IN_MEMORY = "import it in memory: add --no-stream"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Piece:
    """A part of a file.

    Attributes:
        number: Position among the pieces of the log.
        path: The file.
        form: csv, parquet or jsonl.
        start: First byte of the plain content, or first row of parquet.
        end: The byte, or row, behind the last one.
        lines: Line ends in front of it.
        prefix: Text that is read in front of it: the header, or the first row, which says how many columns there are.
        skip: The prefix ends with a row of another piece.
        partitions: Column → value of the folders above the file.
    """

    number: int
    path: str
    form: str
    start: int
    end: int
    lines: int = 0
    prefix: str = ""
    skip: bool = False
    partitions: dict[str, str | None] = field(default_factory=dict)


class PieceReader:
    """Reads pieces; those of one file in their order cost one pass over it, even if it is compressed."""

    def __init__(self, text: TextOptions) -> None:
        """Takes how delimited text is written."""
        self._text = text
        self._path: str | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def read(self, piece: Piece) -> SourceTable:
        """Returns the rows of a piece.

        Raises:
            DataError: They cannot be read.
        """
        path = Path(piece.path)
        if piece.form == Format.PARQUET:
            rows = read_parquet_rows(path, piece.start, piece.end - piece.start)
            table = SourceTable(numbered(rows, first=piece.start + 1), piece.path, "row")
        else:
            table = self._parsed(piece, path)
        new = {name: value for name, value in piece.partitions.items() if name not in table.rows.columns}
        table.rows = table.rows.with_columns(pl.lit(value, pl.String).alias(name) for name, value in new.items())
        return replace(table, partitions=frozenset(piece.partitions))

    def _parsed(self, piece: Piece, path: Path) -> SourceTable:
        content = self._content(piece, path)
        try:
            text = piece.prefix + content.decode()
        except UnicodeDecodeError as error:
            line = piece.lines + content.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"the file is not UTF-8: byte 0x{content[error.start]:02x}",
                where=f"{path}, line {line}",
                fix=f"convert it to UTF-8, with iconv -f windows-1252 -t utf-8 {path.name} for example",
            ) from error
        if piece.form == Format.JSONL:
            return parse_json_lines(text, path, piece.lines)
        quote = pinned_quote(piece.prefix or text, self._text)
        table = parse_delimited(text, path, replace(self._text, quote=quote), piece.lines - piece.prefix.count("\n"))
        if piece.skip:
            table.rows = table.rows.slice(1)
        return table

    def _content(self, piece: Piece, path: Path) -> bytes:
        if self._file is None or self._path != piece.path or self._file.tell() > piece.start:
            self._close()
            self._path, self._file = piece.path, opened(path)
        behind = piece.start - self._file.tell()
        if compression_of(path.name) is None:
            self._file.seek(piece.start)
        else:
            while behind > 0 and (block := self._file.read(min(behind, PIECE_BYTES))):
                behind -= len(block)
        return self._file.read(piece.end - piece.start)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path = self._file = None


def cut(
    files: Sequence[SourceFile], form: Format, text: TextOptions, size: int = PIECE_BYTES, rows: int = PIECE_ROWS
) -> list[Piece]:
    """Cuts files into pieces, in the order of the files and of their rows.

    Of several text files, those without a row are left out.

    Args:
        files: The files, at least one.
        form: csv, parquet or jsonl.
        text: How delimited text is written.
        size: Plain bytes of a piece of text; a piece is longer where a row is.
        rows: Rows of a piece of parquet.

    Raises:
        DataError: A file cannot be cut: it is missing, damaged, or of a kind that must be read whole.
    """
    pieces: list[Piece] = []
    empty: list[NothingInsideError] = []
    for file in files:
        try:
            found = _rows_of(file.path, rows) if form is Format.PARQUET else _text_of(file.path, form, text, size)
            pieces += [replace(piece, partitions=dict(file.partitions)) for piece in found]
        except NothingInsideError as error:
            empty.append(error)
    if not pieces:
        raise empty[0]
    return [replace(piece, number=number) for number, piece in enumerate(pieces)]


def _rows_of(path: Path, rows: int) -> list[Piece]:
    if compression_of(path.name) is not None:
        raise DataError(
            "a compressed parquet file cannot be streamed", where=str(path), fix=f"unpack it, or {_IN_MEMORY}"
        )
    height = _height(path)
    if not height:
        raise NothingInsideError("the parquet file has no row", where=str(path), fix="write it again, with its rows")
    return [Piece(0, str(path), Format.PARQUET, at, min(at + rows, height)) for at in range(0, height, rows)]


def _height(path: Path) -> int:
    read_parquet_rows(path, 0, 1)  # says what is wrong with a file that is no parquet
    return int(pl.scan_parquet(path, glob=False, hive_partitioning=False).select(pl.len()).collect().item())


def _text_of(path: Path, form: Format, text: TextOptions, size: int) -> list[Piece]:
    head, mark = _head(path)
    if form is Format.JSONL:
        if head.lstrip().startswith("["):
            raise DataError(
                "a JSON array cannot be streamed", where=str(path), fix="write one object a line: jq -c '.[]'"
            )
        return list(_pieces(path, size, mark, None, Piece(0, str(path), form, mark, 0)))
    prefix, is_row = first_record(head, text, path)
    quote = pinned_quote(prefix, text) or None
    start = mark + len(prefix.encode())
    first = Piece(0, str(path), form, start, 0, prefix.count("\n"), prefix, skip=is_row)
    pieces = list(_pieces(path, size, start, quote, first))
    if is_row:  # the first piece has the row that all others have in front of them alone
        alone = Piece(0, str(path), form, start, start, prefix.count("\n"), prefix)
        pieces = [replace(pieces[0], skip=False), *pieces[1:]] if pieces else [alone]
    if not pieces:
        raise NothingInsideError(
            "there is a header but no row", where=str(path), fix="write the file again, with its rows"
        )
    return pieces


def _head(path: Path) -> tuple[str, int]:
    """The beginning of a file as text, whole lines if it has any, and the length of its byte order mark."""
    if not path.is_file():
        what = "expected a file, but this is a folder" if path.is_dir() else "there is no such file"
        raise DataError(what, where=str(path), fix="check the path")
    with path.open("rb") as file:
        begun = file.read(8)
    if not begun:
        raise NothingInsideError(
            "the file is empty", where=str(path), fix="write it again; the last copy may have failed"
        )
    if compression_of(path.name) is None and (kind := compression_in(begun)):
        raise DataError(
            f"the file is compressed with {kind.name}, but its name does not end in {kind.endings[0]}",
            where=str(path),
            fix=f"rename it: mv {path.name} {path.name}{kind.endings[0]}",
        )
    with opened(path) as plain:
        head = plain.read(_HEAD)
    if (kind_of := looks_like(head)) != "text":
        raise DataError(f"expected a text file, but this is {kind_of}", where=str(path), fix="convert it to UTF-8 text")
    mark = len(_BOM) if head.startswith(_BOM) else 0
    head = head[mark:]
    if len(head) + mark == _HEAD:
        head = head[: head.rfind(b"\n") + 1] or head
    text = head.decode(errors="replace")
    if not text.strip():
        raise NothingInsideError("the file holds only blanks", where=str(path), fix="write it again")
    return text, mark


def _pieces(path: Path, size: int, start: int, quote: str | None, first: Piece) -> Iterator[Piece]:
    """Yields pieces of about `size` bytes from a byte on, that end behind a line end outside of quotes."""
    lines, left = first.lines, b""
    with opened(path) as plain:
        plain.read(start)
        while True:
            block = plain.read(max(1, size - len(left)) if len(left) < size else size)
            left += block
            if not left:
                return
            end = _last_line_end(left, quote, path) if block else len(left)
            if not end:
                continue  # a row is longer than a piece
            if left[:end].strip():
                yield replace(first, start=start, end=start + end, lines=lines)
            lines += left.count(b"\n", 0, end)
            start, left = start + end, left[end:]


def _last_line_end(block: bytes, quote: str | None, path: Path) -> int:
    """The number of bytes up to the last line end outside of quotes, 0 if there is none."""
    if quote is None or (mark := quote.encode()) not in block:
        return block.rfind(b"\n") + 1
    if b"\\" + mark in block:
        raise DataError(
            "a log with quotes behind backslashes cannot be cut into pieces", where=str(path), fix=_IN_MEMORY
        )
    octets = np.frombuffer(block, np.uint8)
    inside = np.bitwise_xor.accumulate((octets == mark[0]).astype(np.uint8))
    ends = np.flatnonzero((octets == ord("\n")) & (inside == 0))
    return int(ends[-1]) + 1 if len(ends) else 0
