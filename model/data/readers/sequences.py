"""The format `sequences`: a line for each user, `user item item …`, oldest first (as in SASRec and S3-Rec)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from model.data.checks import RENAME_COLUMNS, ROW, Findings, require_columns
from model.data.errors import DataError, places, quoted
from model.data.files import read_text
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.readers.delimited import read_delimited
from model.data.times import Place, parse_times


def read_sequences(source: Path, times: Path | None = None, *, now_ms: int) -> RawDataset:
    """Reads a sequence file, and optionally a time for each of its events.

    The order of a line is the order of the history, even where times tie.

    Args:
        source: The sequence file.
        times: A table with the columns user_id, item_id, pos (counted from 0 for each user) and timestamp.
        now_ms: The time of the import in UTC milliseconds; later times are refused.

    Raises:
        DataError: A file cannot be read, or the times do not fit the sequences.
    """
    findings = Findings()
    log = _read_lines(source, findings)
    if times is not None:
        log.rows = _with_times(log, read_delimited(times), findings, now_ms)
    name = source.name.removesuffix(".gz").removesuffix(".txt")
    return RawDataset(name, f"sequences:{source.name}", log, in_order=True, findings=findings)


def _read_lines(source: Path, findings: Findings) -> SourceTable:
    """Returns a row for each event: user_id, item_id, `pos` (from 0 for each user) and the line number."""
    lines = pl.DataFrame({"fields": read_text(source).splitlines()}).with_row_index(ROW, offset=1)
    lines = lines.with_columns(pl.col("fields").str.strip_chars(), pl.col(ROW).cast(pl.Int64))
    blank = lines.filter(pl.col("fields") == "").height
    findings.drop("blank lines", blank)
    lines = lines.filter(pl.col("fields") != "").with_columns(pl.col("fields").str.split(" "))
    rows = lines.select(pl.col(ROW), user_id=pl.col("fields").list.first(), items=pl.col("fields").list.slice(1))
    rows = rows.with_columns(pl.col("items").list.eval(pl.element().filter(pl.element() != "")))
    if rows["user_id"].str.contains(r"[,;\t]").any():
        wrong = rows.filter(pl.col("user_id").str.contains(r"[,;\t]"))
        raise DataError(
            f"a line has to be `user item item …` with blanks between; found {quoted(wrong['user_id'])}",
            where=places(str(source), "line", wrong[ROW].to_list()),
            fix="use --format csv for a table, or write blanks between the ids",
        )
    twice = rows.filter(pl.col("user_id").is_duplicated())
    if twice.height:
        raise DataError(
            f"users have more than one line: {quoted(twice['user_id'].unique(maintain_order=True))}",
            where=places(str(source), "line", twice[ROW].to_list()),
            fix="join the lines of each user, oldest event first",
        )
    empty = pl.col("items").list.len() == 0
    findings.drop("users without any item", rows.filter(empty).height)
    rows = rows.filter(~empty)
    if rows.is_empty():
        raise DataError("no line names an item", where=str(source), fix="write `user item item …` on each line")
    rows = rows.with_columns(pos=pl.int_ranges(0, pl.col("items").list.len(), dtype=pl.Int64))
    rows = rows.explode("items", "pos").rename({"items": "item_id"})
    return SourceTable(rows, str(source))


def _with_times(log: SourceTable, times: SourceTable, findings: Findings, now_ms: int) -> pl.DataFrame:
    """Adds `timestamp` in ms to the log. Every event needs exactly one time, with the same user, place and item."""
    columns = {name: name for name in ("user_id", "item_id", "pos", "timestamp")}
    require_columns(times.rows.columns[:-1], columns, times.file, list(columns), RENAME_COLUMNS)
    place = times.place()
    parsed = parse_times(times.rows["timestamp"], place, now_ms)
    findings.note(f"times of {Path(times.file).name} read as {parsed.read_as}")
    position = times.rows["pos"].cast(pl.Int64, strict=False)
    if position.null_count():
        raise DataError(
            "places in the history (column pos) are not whole numbers",
            where=place.locate(position.is_null()),
            fix="count the events of each user from 0",
        )
    timed = times.rows.select("user_id", pl.col("item_id").alias("timed_item"), pos=position).with_columns(
        parsed.ms.alias("timestamp"), times.rows[ROW].alias("time_row")
    )
    _refuse_repeats(timed, place)
    rows = log.rows.join(timed, on=["user_id", "pos"], how="left", maintain_order="left")
    _refuse_disagreements(rows, log, place)
    spare = timed.join(log.rows, on=["user_id", "pos"], how="anti").height
    findings.drop("times of events that are not in the sequences", spare)
    raised = pl.col("timestamp").cum_max().over("user_id")
    early = int(rows.select((raised != pl.col("timestamp")).sum()).item())
    if early:
        findings.note(
            f"{early} events are dated before the one they follow; the order is kept, and their time is raised to it"
        )
    return rows.with_columns(raised).select("user_id", "item_id", "timestamp", ROW)


def _refuse_repeats(timed: pl.DataFrame, place: Place) -> None:
    repeated = timed.select(pl.struct("user_id", "pos").is_duplicated()).to_series()
    if repeated.any():
        raise DataError(
            f"{int(repeated.sum())} times share user and place with another time",
            where=place.locate(repeated),
            fix="give each event one time",
        )


def _refuse_disagreements(rows: pl.DataFrame, log: SourceTable, place: Place) -> None:
    untimed = rows.filter(pl.col("timestamp").is_null())
    if untimed.height:
        lines = places(log.file, "line", untimed[ROW].unique().sort())
        raise DataError(
            f"{untimed.height} events have no time",
            where=f"{place.file}; their users are in {lines}",
            fix="give a time for every event, or leave --times out",
        )
    other = rows.filter(pl.col("item_id") != pl.col("timed_item"))
    if other.height:
        raise DataError(
            f"{other.height} times belong to another item than the one at their place in the sequence file",
            where=places(place.file, "line", other["time_row"]),
            fix="take both files from the same version of the data set",
        )
