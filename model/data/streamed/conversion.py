"""Converts the rows of a piece into checked events, and notes how its columns were read.

Some columns are read in a way that all of their rows decide together: the unit of times, ids that lost a `.0`, the
decimal sign. A piece sees its own rows alone, so it notes how it read them. Where two pieces read a column in
different ways, an import in memory would decide between them, and one that streams refuses (`Facts.check`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import polars as pl

from model.data.assemble import checked_events, prepare
from model.data.checks import ROW
from model.data.columns import LOG_COLUMNS
from model.data.dataset import EVENT_SCHEMA, SCENE
from model.data.date_format import read_dates
from model.data.errors import DataError
from model.data.formats import ImportRequest
from model.data.ids import POINTED, WHOLE
from model.data.losses import MOST_LOST
from model.data.orders import as_order
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.readers.event_tables import log_of
from model.data.streamed.pieces import Piece

# The place of an event in the source: the piece in the upper half, the row in the lower one.
SEQ = "#seq"
SEQ_STEP = 1 << 32
# Columns of converted events. Queries only tell events apart; scenes may be left out at the end.
CONVERTED: dict[str, pl.DataType] = {**EVENT_SCHEMA, SCENE: pl.String(), "query": pl.String(), SEQ: pl.Int64()}
IN_MEMORY = "import it in memory: add --no-stream"
_FINE = ("microseconds", "nanoseconds")
# Columns whose whole numbers and fractions may stand in different pieces.
_NUMBERS = ("value", "quantity")
# Notes that speak of all rows; the import makes them itself, from the facts of all pieces.
_COUNTED = re.compile(r"(\d+) (\D+)")
_OF_ALL_ROWS = ("columns that hold nothing", "no times:", "no event types:", "--null", "--allow-loss", "--type-map")


@dataclass(frozen=True)
class LogColumns:
    """The columns of all files of a log.

    Attributes:
        names: Their names, in the order of the files.
        partitions: Those that are names of folders.
    """

    names: tuple[str, ...]
    partitions: frozenset[str] = frozenset()


@dataclass
class Facts:
    """What a piece says about a log, or several pieces together.

    Attributes:
        rows: Rows that were read.
        held: Columns of the log that hold something.
        readings: What → the ways in which it was read.
        losses: Column → how many values could not be read, and how many there are.
        dropped: Reason → number of dropped rows.
        notes: Sentences for the report.
        counted: What follows the number in a note that begins with one → the number.
        default_type: The type of events without one.
    """

    rows: int = 0
    held: set[str] = field(default_factory=set)
    readings: dict[str, set[str]] = field(default_factory=dict)
    losses: dict[str, tuple[int, int]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    default_type: str = "view"

    def add(self, other: Facts) -> None:
        """Adds what another piece says."""
        self.rows += other.rows
        self.held |= other.held
        self.default_type = other.default_type
        for what, ways in other.readings.items():
            self.readings.setdefault(what, set()).update(ways)
        for name, (lost, given) in other.losses.items():
            before = self.losses.get(name, (0, 0))
            self.losses[name] = before[0] + lost, before[1] + given
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        for what, count in other.counted.items():
            self.counted[what] = self.counted.get(what, 0) + count
        self.notes += [note for note in other.notes if note not in self.notes]

    def check(self, where: str) -> None:
        """Checks that the pieces agree.

        Args:
            where: The log, for messages.

        Raises:
            DataError: Two pieces read a column in different ways.
        """
        for what, ways in self.readings.items():
            if len(ways) > 1 and not _agree(what, ways):
                raise DataError(
                    f"parts of the log read its {what} in different ways: {', '.join(sorted(ways))}",
                    where=where,
                    fix=f"write them in one way, or {IN_MEMORY}",
                )

    def check_losses(self, where: str, allowed: frozenset[str]) -> None:
        """Checks that no column lost more values than an import allows.

        Raises:
            DataError: One did.
        """
        for name, (lost, given) in self.losses.items():
            if lost > MOST_LOST * given and name not in allowed:
                raise DataError(
                    f"column {name!r} would lose {lost} of its {given} values, which cannot be read",
                    where=where,
                    fix=f"correct them, or accept the loss with --allow-loss {name}",
                )

    def to_json(self) -> dict[str, Any]:
        """Returns the facts, for `from_json`."""
        ways = {what: sorted(ways) for what, ways in self.readings.items()}
        return {**asdict(self), "held": sorted(self.held), "readings": ways}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Reads what `to_json` returned."""
        readings = {what: set(ways) for what, ways in told["readings"].items()}
        losses = {name: (lost, given) for name, (lost, given) in told["losses"].items()}
        return cls(**{**told, "held": set(told["held"]), "readings": readings, "losses": losses})


def _agree(what: str, ways: set[str]) -> bool:
    if what.endswith(" ids"):  # a piece without a .0 is read alike either way, if it has whole numbers alone
        return ways == {POINTED, WHOLE} or POINTED not in ways
    return what.startswith("type of ") and what.removeprefix("type of ") in _NUMBERS and ways <= {"Int64", "Float64"}


def converted(
    table: SourceTable, piece: Piece, columns: LogColumns, request: ImportRequest, now_ms: int
) -> tuple[pl.DataFrame, Facts]:
    """Returns the events of a piece.

    Args:
        table: The rows of the piece.
        piece: The piece.
        columns: The columns of all files.
        request: The options of the import.
        now_ms: The time of the import in UTC milliseconds.

    Returns:
        Events with the columns of `CONVERTED`, in the order of the source, and what the piece says about the log. An
        event has no timestamp if the piece has none.

    Raises:
        DataError: The piece cannot be used.
    """
    absent = [pl.lit(None, pl.String).alias(name) for name in columns.names if name not in table.rows.columns]
    rows_of_all = table.rows.with_columns(absent).select(*columns.names, ROW)
    raw = log_of(replace(table, rows=rows_of_all, partitions=columns.partitions), request.columns)
    raw.rules = replace(request.rules, allow_loss=request.rules.allow_loss | set(columns.names))
    if request.date_format:
        raw.log = read_dates(raw.log, request.date_format, request.rules.null_words)
    rows, findings = raw.log.rows.height, raw.findings
    known = list(findings.notes)
    prepare([raw.log], raw)
    facts = Facts(rows=rows, held=set(raw.log.rows.columns) - {ROW}, default_type=raw.default_type)
    if facts.held >= {"user_id", "item_id"} and rows:
        _refuse_what_all_rows_decide(raw)
        events, _ = checked_events(raw, now_ms)
    else:
        events = pl.DataFrame(schema=CONVERTED)
    _note_types(raw, facts)
    facts.readings |= {what: {way} for what, way in findings.readings.items()}
    facts.losses, facts.dropped = findings.losses, findings.dropped
    later = [note for note in findings.notes[len(known) :] if not any(letter.isdigit() for letter in note)]
    facts.notes = known + [note for note in later if not note.startswith(_OF_ALL_ROWS)]
    for note in findings.notes[len(known) :]:
        if (begun := _COUNTED.fullmatch(note)) is not None:
            facts.counted[begun[2]] = int(begun[1])
    seq = (pl.int_range(pl.len(), dtype=pl.Int64) + piece.number * SEQ_STEP).alias(SEQ)
    events = events.with_columns(seq)
    return events.select(pl.col(name).cast(dtype) for name, dtype in CONVERTED.items()), facts


def _refuse_what_all_rows_decide(raw: RawDataset) -> None:
    """Raises `DataError` for columns that only a look at all rows can read."""
    rows = raw.log.rows
    if "query" in rows.columns and (rows["query"].is_not_null() & rows["item_id"].is_null()).any():
        raise DataError(
            "a log with searches that name no item cannot be streamed",
            where=raw.log.place("query").whole(rows["query"]),
            fix=f"leave the queries out with --map query=, or {IN_MEMORY}",
        )
    if "event_type" in rows.columns and rows["event_type"].dtype.is_float():
        raise DataError(
            "event types that are numbers with fractions cannot be streamed",
            where=raw.log.place("event_type").whole(rows["event_type"]),
            fix=f"write them as text, or {IN_MEMORY}",
        )
    if "timestamp" not in rows.columns:
        return
    column, users = rows["timestamp"], rows["user_id"].cast(pl.String)
    if as_order(column, users) is not None or _small_numbers(column):
        raise DataError(
            "the time column may count the events, which only a look at all of them can tell",
            where=raw.log.place("timestamp").whole(column),
            fix=f"write times, leave the column out with --map time=, or {IN_MEMORY}",
        )


def _small_numbers(column: pl.Series) -> bool:
    """Whether a column holds whole numbers that are no epoch."""
    numbers = column.cast(pl.Float64, strict=False) if column.dtype == pl.String else column
    if not (numbers.dtype.is_integer() or numbers.dtype.is_float()) or numbers.null_count() == len(numbers):
        return False
    return bool(((numbers >= 0) & (numbers < 10**8)).all())


def _note_types(raw: RawDataset, facts: Facts) -> None:
    """Notes the types of the columns, and what of them decides how values are read."""
    rows, readings = raw.log.rows, facts.readings
    for name in LOG_COLUMNS.values():
        if name in rows.columns:
            readings[f"type of {name}"] = {str(rows[name].dtype)}
    read_as = raw.findings.readings.get("times", "")
    if read_as.endswith(_FINE):  # fractions of them are rounded, whole numbers are cut
        column = rows["timestamp"]
        fractions = column.str.contains(r"[.eE]").any() if column.dtype == pl.String else column.dtype.is_float()
        readings["fractions of times"] = {"with a fraction" if fractions else "whole"}
