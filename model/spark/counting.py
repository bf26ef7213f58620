"""Counts a data set on Spark: the folder of counts of one machine, row for row.

The workers count ranges of users, Spark adds their pairs up, and the driver makes the tables of the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from model.data.dataset_folder import read_meta
from model.data.streamed.work_folder import WorkFolder
from model.signals.counted.count_files import PAIR_SCHEMA, PAIRS, TRANSITION_SCHEMA, TRANSITIONS, write_counts
from model.signals.counted.counting import CountSizes, item_rows, pair_rows, transition_rows
from model.signals.counted.range_counts import RangeCounts, SplitRule, Splitter
from model.signals.counted.user_ranges import DataSetFiles, UserRange, ranges
from model.signals.shared_users import ItemTotals, Kind
from model.spark.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CODEC: Literal["snappy"] = "snappy"


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to know to count a range."""

    files: DataSetFiles
    splitter: Splitter
    work: Path


def count_on_spark(
    data: Path,
    out: Path,
    master: str,
    rule: SplitRule | None = None,
    kind: Kind = "cosine",
    step: Callable[[str], None] = lambda _: None,
    sizes: CountSizes | None = None,
) -> dict[str, Any]:
    """Splits and counts the log of a data set on Spark.

    Args:
        data: Folder of the data set, which the workers see as well.
        out: Folder to write; intermediate files lie beside it, under `.NAME.spark`.
        master: Where Spark runs.
        rule: How the log is split.
        kind: Kind of similarity of the table of item-CF.
        step: Called with a few words before each step.
        sizes: How large the ranges of users are.

    Returns:
        What meta.json tells.

    Raises:
        DataError: As `count_data_set`, or Spark cannot be used.
    """
    rule, sizes, out = rule or SplitRule(), sizes or CountSizes(), out.absolute()
    meta = read_meta(data)
    files = DataSetFiles(data.absolute(), bool(meta["has_time"]))
    step("reading the users")
    rows, kept = files.users()
    splitter, items = Splitter.of(rule, files, kept[kept > 0]), files.items()
    parts = ranges(rows, kept, sizes.range_rows)
    work = WorkFolder(out.with_name(f".{out.name}.spark"), repr((meta["fingerprint"], rule, sizes)))
    try:
        job = _Job(files, splitter, work.path)
        for name in ("ranges", PAIRS, TRANSITIONS):
            work.folder(name)
        with spark_session(master, f"gpt4rec count {data.name}") as spark:
            step(f"counting {len(parts)} ranges of users on Spark")
            spark.sparkContext.parallelize(parts, len(parts)).foreach(partial(_count, job=job))
            step("adding the counts up on Spark")
            pairs = _sums(spark, work, PAIRS, list(PAIR_SCHEMA)[:2])
            transitions = _sums(spark, work, TRANSITIONS, list(TRANSITION_SCHEMA)[:2])
        told = {"fingerprint": meta["fingerprint"], "split": asdict(rule), "kind": kind}
        of_ranges = [work.path / "ranges" / f"{part.number:06d}" for part in parts]
        step("writing the counts")
        questions = [path.with_suffix(".parquet") for path in of_ranges]
        write_counts(out, told, _items(of_ranges, items), pairs, transitions, questions, kind)
        return told
    finally:
        work.remove()


def _count(part: UserRange, job: _Job) -> None:
    """On a worker: counts a range, and writes what Spark adds up. Running it again changes nothing."""
    counts = RangeCounts.of(job.files.read(part, job.files.items()), part, job.splitter)
    counts.save(job.work / "ranges" / f"{part.number:06d}")
    every = slice(0, len(counts.events))
    pair_rows([counts], every).write_parquet(job.work / PAIRS / f"{part.number:06d}.parquet", compression=_CODEC)
    path = job.work / TRANSITIONS / f"{part.number:06d}.parquet"
    transition_rows([counts], every).write_parquet(path, compression=_CODEC)


def _sums(spark: SparkSession, work: WorkFolder, name: str, keys: Sequence[str]) -> list[Path]:
    """Adds the counts of the ranges up, and writes them by item and other item."""
    from pyspark.sql import functions as f

    rows = spark.read.parquet(str(work.folder(name)))
    sums = rows.groupBy(*keys).agg(*(f.sum(column).alias(column) for column in rows.columns if column not in keys))
    target = work.path / f"{name}-sums"
    sums.orderBy(*keys).write.parquet(str(target))
    return sorted(target.glob("part-*.parquet"))


def _items(of_ranges: Sequence[Path], ids: pl.DataFrame) -> pl.DataFrame:
    none = np.zeros(ids.height, np.int64)
    events, counted, totals = none.copy(), none.copy(), ItemTotals(none, none)
    for path in of_ranges:
        part = RangeCounts.load(path)
        events += part.events
        counted += part.counted
        totals += part.totals
    return item_rows(ids, events, counted, totals)
