"""The steps of an import in pieces, each for one piece, one partition or one block.

One machine runs them one after the other (`model.data.streamed.importing`); Spark runs those of pieces and partitions
on its workers (`model.spark`). Both then finish alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.data.columns import LOG_COLUMNS
from model.data.compression import compression_of
from model.data.errors import DataError
from model.data.formats import TABLES, Format, ImportRequest
from model.data.readers.delimited import column_names
from model.data.sources import STDIN, SourceFile, find_files
from model.data.streamed.conversion import IN_MEMORY, LogColumns
from model.data.streamed.pieces import PIECE_BYTES, PIECE_ROWS, Piece, PieceReader, cut

# From this size on an import streams by itself; a log in memory takes several times the size of its files.
STREAM_FROM = 2 << 30
# What a compressed file unpacks to, roughly.
_PACKED = 4
# Plain bytes of a log for each partition of users, and the most partitions.
_PARTITION_BYTES, _PARTITIONS = 64 << 20, 256


@dataclass(frozen=True)
class Sizes:
    """How large the parts are; smaller ones need less memory.

    Attributes:
        piece_bytes: Plain bytes of a piece of text.
        piece_rows: Rows of a piece of parquet.
        partitions: Partitions of users; None: as many as the size of the log needs.
        block: Events of a block.
    """

    piece_bytes: int = PIECE_BYTES
    piece_rows: int = PIECE_ROWS
    partitions: int | None = None
    block: int = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What is to be imported, and in which parts.

    Attributes:
        request: The options of the import.
        now_ms: The time of the import in UTC milliseconds.
        pieces: The pieces of the log.
        columns: The columns of all files.
        partitions: Number of partitions of users.
    """

    request: ImportRequest
    now_ms: int
    pieces: tuple[Piece, ...]
    columns: LogColumns
    partitions: int

    @property
    def source(self) -> str:
        """Where the data came from, as an import in memory writes it."""
        files = list(dict.fromkeys(piece.path for piece in self.pieces))
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return f"{self.request.format}:{Path(files[0]).name}{more}"


def streams(request: ImportRequest) -> bool:
    """Returns whether an import is large enough to stream by itself."""
    if request.format not in TABLES or STDIN in request.sources:
        return False
    return sum(_plain_bytes(file) for file in find_files(request.sources, request.format)) >= STREAM_FROM


def require_streamable(request: ImportRequest) -> None:
    """Checks that a source can be cut into pieces.

    Raises:
        DataError: It is the standard input, or of another format.
    """
    if request.format not in TABLES or STDIN in request.sources:
        raise DataError(
            f"{'the standard input' if STDIN in request.sources else request.format} cannot be streamed",
            where=request.source,
            fix=f"give files of {', '.join(TABLES)}, or {IN_MEMORY}",
        )


def plan_of(request: ImportRequest, now_ms: int, sizes: Sizes) -> Plan:
    """Cuts a log into parts.

    Raises:
        DataError: The log cannot be read, or cannot be streamed.
    """
    require_streamable(request)
    files = find_files(request.sources, request.format)
    pieces = cut(files, request.format, request.text, sizes.piece_bytes, sizes.piece_rows)
    columns = _columns(pieces, request)
    size = sum(_plain_bytes(file) for file in files)
    partitions = sizes.partitions or min(_PARTITIONS, 1 + size // _PARTITION_BYTES)
    return Plan(request, now_ms, tuple(pieces), columns, partitions)


def notes_of(held: Sequence[str], default_type: str, columns: LogColumns) -> list[str]:
    """Returns the notes about columns that hold nothing, or that the log does not have."""
    notes = []
    empty = [name for name in columns.names if name in LOG_COLUMNS.values() and name not in held]
    if empty:
        notes.append(f"columns that hold nothing count as absent: {', '.join(empty)}")
    if "timestamp" not in held:
        notes.append("no times: the order of the rows is the order of the history; time features are off")
    if "event_type" not in held:
        notes.append(f"no event types: every event is a {default_type!r}")
    return notes


def _plain_bytes(file: SourceFile) -> int:
    size = file.path.stat().st_size if file.path.is_file() else 0
    return size * (_PACKED if compression_of(file.path.name) else 1)


def _columns(pieces: Sequence[Piece], request: ImportRequest) -> LogColumns:
    """The columns of all files: of text from the header, of parquet from the footer, of JSON lines from every line."""
    names: dict[str, None] = {}
    partitions: dict[str, None] = {}
    first: list[str] | None = None
    last = ""
    with PieceReader(request.text) as reader:
        for piece in pieces:
            if piece.path == last and piece.form != Format.JSONL:
                continue
            found = _names(piece, request, reader)
            if first is not None and piece.path != last and not set(first) & set(found):
                raise DataError(
                    f"the files have no column in common: {', '.join(found[:5])} …",
                    where=f"{piece.path} and {pieces[0].path}",
                    fix="import files of one kind together; add --no-header if their first line is a row already",
                )
            first, last = first or found, piece.path
            names |= dict.fromkeys(found)
            partitions |= dict.fromkeys(piece.partitions)
    return LogColumns((*names, *(name for name in partitions if name not in names)), frozenset(partitions))


def _names(piece: Piece, request: ImportRequest, reader: PieceReader) -> list[str]:
    path = Path(piece.path)
    if piece.form == Format.PARQUET:
        return pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema().names()
    if piece.form == Format.CSV:
        return column_names(piece.prefix, request.text, path)
    return [name for name in reader.read(piece).rows.columns if not name.startswith("#row")]
