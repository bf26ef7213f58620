"""Sequence files: one line a user, `user item item …`, oldest first (as SASRec and S3-Rec have them)."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from model.data.assemble import Raw, Table
from model.data.checks import ROW, Findings, require_columns
from model.data.errors import DataError, places, quoted
from model.data.files import read_text
from model.data.readers.delimited import read_delimited
from model.data.times import Place, parse_times


def read_sequences(source: Path, times: Path | None = None, *, now_ms: int) -> Raw:
    """Read a sequence file, optionally with times (`user_id,item_id,pos,timestamp`, pos from 0).

    The order of the lines is kept even where times tie. Raises `DataError`.
    """
    findings = Findings()
    log = _read_lines(source, findings)
    if times is not None:
        log.rows = _with_times(log, read_delimited(times), findings, now_ms)
    name = source.name.removesuffix(".gz").removesuffix(".txt")
    return Raw(name, f"sequences:{source.name}", log, in_order=True, findings=findings)


def _read_lines(source: Path, findings: Findings) -> Table:
    """One row an event: user_id, item_id, `pos` (from 0 within the user) and the line number."""
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
            f"a line is `user item item …` with blanks between; found {quoted(wrong['user_id'])}",
            where=places(str(source), "line", wrong[ROW].to_list()),
            mend="choose --format csv for a table, or write blanks between the ids",
        )
    twice = rows.filter(pl.col("user_id").is_duplicated())
    if twice.height:
        raise DataError(
            f"users have more than one line: {quoted(twice['user_id'].unique(maintain_order=True))}",
            where=places(str(source), "line", twice[ROW].to_list()),
            mend="join the lines of a user, oldest event first",
        )
    empty = pl.col("items").list.len() == 0
    findings.drop("users without any item", rows.filter(empty).height)
    rows = rows.filter(~empty)
    if rows.is_empty():
        raise DataError("no line names an item", where=str(source), mend="a line is `user item item …`")
    rows = rows.with_columns(pos=pl.int_ranges(0, pl.col("items").list.len(), dtype=pl.Int64))
    rows = rows.explode("items", "pos").rename({"items": "item_id"})
    return Table(rows, str(source))


def _with_times(log: Table, times: Table, findings: Findings, now_ms: int) -> pl.DataFrame:
    """The log with `timestamp` in ms. Every event needs exactly one time, that of the same user, place and
    item."""
    columns = {name: name for name in ("user_id", "item_id", "pos", "timestamp")}
    require_columns(times.rows.columns[:-1], columns, times.file, list(columns))
    place = times.place()
    read = parse_times(times.rows["timestamp"], place, now_ms)
    findings.note(f"times of {Path(times.file).name} read as {read.read_as}")
    position = times.rows["pos"].cast(pl.Int64, strict=False)
    if position.null_count():
        raise DataError(
            "places in the history (column pos) are no whole numbers",
            where=place.of(position.is_null()),
            mend="count the events of a user from 0",
        )
    known = times.rows.select("user_id", pl.col("item_id").alias("timed_item"), pos=position).with_columns(
        read.ms.alias("timestamp"), times.rows[ROW].alias("time_row")
    )
    _refuse_repeats(known, place)
    rows = log.rows.join(known, on=["user_id", "pos"], how="left", maintain_order="left")
    _refuse_disagreements(rows, log, place)
    spare = known.join(log.rows, on=["user_id", "pos"], how="anti").height
    findings.drop("times of events that are not in the sequences", spare)
    raised = pl.col("timestamp").cum_max().over("user_id")
    back = int(rows.select((raised != pl.col("timestamp")).sum()).item())
    if back:
        findings.note(f"{back} events are dated before the one they follow; the order is kept, their time raised to it")
    return rows.with_columns(raised).select("user_id", "item_id", "timestamp", ROW)


def _refuse_repeats(known: pl.DataFrame, place: Place) -> None:
    repeated = known.select(pl.struct("user_id", "pos").is_duplicated()).to_series()
    if repeated.any():
        raise DataError(
            f"{int(repeated.sum())} times share user and place with another",
            where=place.of(repeated),
            mend="give one time an event",
        )


def _refuse_disagreements(rows: pl.DataFrame, log: Table, place: Place) -> None:
    untimed = rows.filter(pl.col("timestamp").is_null())
    if untimed.height:
        lines = places(log.file, "line", untimed[ROW].unique().sort())
        raise DataError(
            f"{untimed.height} events have no time",
            where=f"{place.file}; their users are in {lines}",
            mend="give a time for every event, or import without --times",
        )
    other = rows.filter(pl.col("item_id") != pl.col("timed_item"))
    if other.height:
        raise DataError(
            f"{other.height} times are those of another item than stands at their place",
            where=places(place.file, "line", other["time_row"]),
            mend="both files must come from the same version of the data set",
        )


def read_attributes(path: Path) -> Table:
    """JSON object item → list of attribute ids (text or numbers). Raises `DataError`."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"the attributes are no JSON: {error.msg}",
            where=f"{path}, line {error.lineno}, column {error.colno}",
            mend='write {"item": [attribute, …], …}',
        ) from error
    fits = isinstance(content, dict) and all(
        isinstance(values, list) and all(isinstance(v, str | int) for v in values) for values in content.values()
    )
    if not fits:
        raise DataError(
            "attributes are an object item → list of ids",
            where=str(path),
            mend='write {"item": [attribute, …], …}',
        )
    rows = pl.DataFrame(
        {"item_id": list(content), "attributes": [[str(v) for v in values] for values in content.values()]},
        schema={"item_id": pl.String, "attributes": pl.List(pl.String)},
    )
    if rows.is_empty():
        raise DataError("the attributes name no item", where=str(path), mend="leave --attributes out")
    return Table(rows.with_columns(pl.int_range(1, 1 + pl.len(), dtype=pl.Int64).alias(ROW)), str(path), "entry")
