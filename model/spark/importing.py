"""Imports a log on Spark: the data set of an import on one machine, row for row.

The workers read and convert the pieces of the files, with the readers and checks of one machine, and Spark puts the
events into order: repeated ones out, users by their first appearance, events by time. The driver writes the files. All
of them see one file system, the one of `--out`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from model.data.dataset_folder import check_replaceable
from model.data.formats import ImportRequest
from model.data.streamed.by_user import FIRST
from model.data.streamed.conversion import CONVERTED, SEQ, Facts, converted
from model.data.streamed.engine import Plan, Sizes, plan_of
from model.data.streamed.finishing import Block, refuse_nothing, write_data_set
from model.data.streamed.pieces import Piece, PieceReader
from model.data.streamed.tallies import Tallies
from model.data.streamed.work_folder import WorkFolder
from model.spark.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Written by polars, read by Spark.
_CODEC: Literal["snappy"] = "snappy"


def import_on_spark(
    request: ImportRequest,
    out: Path,
    master: str,
    step: Callable[[str], None] = lambda _: None,
    now_ms: int | None = None,
    sizes: Sizes | None = None,
) -> dict[str, Any]:
    """Reads, checks and writes a data set on Spark.

    Args:
        request: The source, its format and the side tables.
        out: Folder of the data set; intermediate files lie beside it, under `.NAME.spark`.
        master: Where Spark runs.
        step: Called with a few words before each step.
        now_ms: The time of the import in UTC milliseconds, by default the clock's; later times are refused.
        sizes: How large the parts are.

    Returns:
        What meta.json tells of the data set.

    Raises:
        DataError: As `import_streamed`, or Spark cannot be used.
    """
    sizes, out = sizes or Sizes(), out.absolute()
    check_replaceable(out)
    now_ms = now_ms if now_ms is not None else time.time_ns() // 1_000_000
    step("cutting the log into pieces")
    plan = plan_of(request, now_ms, sizes)
    work = WorkFolder(out.with_name(f".{out.name}.spark"), repr((request, now_ms)))
    try:
        with spark_session(master, f"gpt4rec import {request.source}") as spark:
            step(f"reading {len(plan.pieces)} pieces on Spark")
            facts = _convert(spark, plan, work.folder("events"))
            step("putting the events into order on Spark")
            has_time = "timestamp" in facts.held
            events, dropped = _distinct(spark.read.parquet(str(work.folder("events"))), has_time=has_time)
            facts.add(Facts(dropped=dropped, default_type=facts.default_type))
            blocks, tallies = _blocks(spark, _ordered(events, facts, sizes, has_time=has_time), work)
        refuse_nothing(plan, facts, tallies)
        return write_data_set(plan, facts, tallies, blocks, out, step)
    finally:
        work.remove()


def _convert(spark: SparkSession, plan: Plan, folder: Path) -> Facts:
    pieces = spark.sparkContext.parallelize(plan.pieces, len(plan.pieces))
    facts, where = Facts(), f"{plan.pieces[0].path} …"
    for told in pieces.map(partial(_converted, plan=plan, folder=folder)).collect():
        facts.add(Facts.from_json(told))
        facts.check(where)
    facts.check_losses(where, plan.request.rules.allow_loss)
    return facts


def _converted(piece: Piece, plan: Plan, folder: Path) -> dict[str, Any]:
    """On a worker: converts a piece, and returns what it says about the log. Running it again changes nothing."""
    with PieceReader(plan.request.text) as reader:
        events, facts = converted(reader.read(piece), piece, plan.columns, plan.request, plan.now_ms)
    events.write_parquet(folder / f"{piece.number:06d}.parquet", compression=_CODEC)
    return facts.to_json()


def _distinct(events: DataFrame, *, has_time: bool) -> tuple[DataFrame, dict[str, int]]:
    """Drops events without a time and repeated ones, as `model.data.streamed.by_user.ordered` does."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    if not has_time:
        return events, {}
    every, timed = events.count(), events.filter(f.col("timestamp").isNotNull())
    same = Window.partitionBy(*(name for name in CONVERTED if name != SEQ)).orderBy(SEQ)
    kept = timed.withColumn("#nth", f.row_number().over(same)).filter(f.col("#nth") == 1).drop("#nth").cache()
    with_time, once = timed.count(), kept.count()
    dropped = {"no time": every - with_time, "exact duplicates": with_time - once}
    return kept, {reason: count for reason, count in dropped.items() if count}


def _ordered(events: DataFrame, facts: Facts, sizes: Sizes, *, has_time: bool) -> DataFrame:
    """Puts the events into order; each partition has all events of its users."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    events = events.withColumn(FIRST, f.min(SEQ).over(Window.partitionBy("user_id")))
    parts = 1 + facts.rows // max(sizes.block, 1)
    keys = [FIRST, *(["timestamp"] if has_time else []), SEQ]
    return events.repartitionByRange(parts, FIRST).sortWithinPartitions(*keys).drop(FIRST, SEQ)


def _blocks(spark: SparkSession, events: DataFrame, work: WorkFolder) -> tuple[list[Block], Tallies]:
    """Writes the partitions, and beside each what is read of it at the end."""
    ordered, folder = work.path / "ordered", work.folder("blocks")
    events.write.parquet(str(ordered))
    parts = list(enumerate(sorted(ordered.glob("part-*.parquet"))))
    tallies, blocks = Tallies(), list[Block]()
    if not parts:
        return blocks, tallies
    written = spark.sparkContext.parallelize(parts, len(parts)).map(partial(_block, folder=folder)).collect()
    for (number, _), told in zip(parts, written, strict=True):
        if told["events"]:
            tallies.add(Tallies.from_json(told))
            blocks.append(Block(folder, number))
    return blocks, tallies


def _block(part: tuple[int, Path], folder: Path) -> dict[str, Any]:
    """On a worker: writes a block, and returns its counts."""
    number, path = part
    return Block(folder, number).write(pl.read_parquet(path, glob=False)).to_json()
