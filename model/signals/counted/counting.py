"""Counts a log in ranges of users on one machine: `gpt4rec data count`.

    COUNTS/items.parquet        item, item_id, events, counted, users, weight: what is known of each item alone
    COUNTS/pairs.parquet        item, other, users, weight: what two items share (`model.signals.shared_users`)
    COUNTS/transitions.parquet  item, next, weight: what follows an item, in units of 1/2520
    COUNTS/split.parquet        part, user, history_end, target: the questions of validation and test
    COUNTS/item_cf.npz          the most similar items, made of the pairs
    COUNTS/transitions.npz      the transitions, made of their counts
    COUNTS/meta.json            the fingerprint of the data set, and how it was split

Everything but the two tables is whole numbers, which ranges of users add up to, so a log that is counted in whatever
parts has the same files. The tables are made by the code that makes those of a training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from model.data.dataset_folder import read_meta
from model.data.streamed.work_folder import WorkFolder
from model.signals.counted.count_files import PAIRS, TRANSITIONS, Kind, write_counts
from model.signals.counted.range_counts import RangeCounts, SplitRule, Splitter
from model.signals.counted.user_ranges import DataSetFiles, ranges
from model.signals.shared_users import ItemTotals, shared
from model.signals.transition_table import REACH
from service.artifact.array_types import IntArray


@dataclass(frozen=True)
class CountSizes:
    """How large the parts are; smaller ones need less memory.

    Attributes:
        range_rows: Events of a range of users.
        pairs: Pairs of items that are held at once.
    """

    range_rows: int = 1 << 20
    pairs: int = 1 << 24


def count_data_set(
    data: Path,
    out: Path,
    rule: SplitRule | None = None,
    kind: Kind = "cosine",
    step: Callable[[str], None] = lambda _: None,
    sizes: CountSizes | None = None,
) -> dict[str, Any]:
    """Splits and counts the log of a data set, in parts that fit into memory.

    Args:
        data: Folder of the data set.
        out: Folder to write. What is not finished lies beside it, under `.NAME.streamed`; the same call goes on there.
        rule: How the log is split.
        kind: Kind of similarity of the table of item-CF.
        step: Called with a few words before each step.
        sizes: How large the parts are.

    Returns:
        What meta.json tells.

    Raises:
        DataError: The data set cannot be read or split.
    """
    rule, sizes, out = rule or SplitRule(), sizes or CountSizes(), out.absolute()
    meta = read_meta(data)
    files = DataSetFiles(data, bool(meta["has_time"]))
    work = WorkFolder(out.with_name(f".{out.name}.streamed"), repr((meta["fingerprint"], rule, sizes)))
    step("reading the users")
    rows, kept = files.users()
    splitter, items = Splitter.of(rule, files, kept[kept > 0]), files.items()
    counts = _Counted(items.height)
    parts = ranges(rows, kept, sizes.range_rows)
    for part in parts:
        name, path = f"range-{part.number:06d}", work.folder("ranges") / f"{part.number:06d}"
        if work.done(name) is None:
            step(f"range {part.number + 1} of {len(parts)}")
            RangeCounts.of(files.read(part, items), part, splitter).save(path)
            work.finish(name, {})
        counts.add(path)
    pairs = _rows(work, PAIRS, counts.pair_blocks(sizes.pairs), counts.pairs, step)
    transitions = _rows(work, TRANSITIONS, counts.transition_blocks(sizes.pairs), counts.transitions, step)
    told = {"fingerprint": meta["fingerprint"], "split": asdict(rule), "kind": kind}
    step("writing the counts")
    write_counts(out, told, counts.items(items), pairs, transitions, counts.questions, kind)
    work.remove()
    return told


def _rows(
    work: WorkFolder,
    name: str,
    parts: Sequence[slice],
    rows: Callable[[slice], pl.DataFrame],
    step: Callable[[str], None],
) -> list[Path]:
    """Writes the counts of ranges of items, and returns their files."""
    paths = []
    for number, part in enumerate(parts):
        path = work.folder(name) / f"{number:06d}.parquet"
        if work.done(f"{name}-{number:06d}") is None:
            step(f"{name}, items {part.start:,} to {part.stop:,}")
            rows(part).write_parquet(path, compression="lz4")
            work.finish(f"{name}-{number:06d}", {})
        paths.append(path)
    return paths


class _Counted:
    """The counts of all ranges; what grows with the users stays in their files."""

    def __init__(self, n_items: int) -> None:
        none = np.zeros(n_items, np.int64)
        self.questions: list[Path] = []
        self._files: list[Path] = []
        self._events, self._counted, self._reach = none.copy(), none.copy(), none.copy()
        self._totals = ItemTotals(none, none)

    def add(self, path: Path) -> None:
        part = RangeCounts.load(path)
        self._files.append(path)
        self.questions.append(path.with_suffix(".parquet"))
        self._events += part.events
        self._counted += part.counted
        self._totals += part.totals
        # An item shares users with no more items than these users have.
        of_user = np.diff(part.touched.indptr)
        weights = np.repeat(of_user, of_user).astype(np.float64)
        self._reach += np.bincount(part.touched.indices, weights, len(self._events)).astype(np.int64)

    def items(self, ids: pl.DataFrame) -> pl.DataFrame:
        return item_rows(ids, self._events, self._counted, self._totals)

    def pair_blocks(self, most: int) -> list[slice]:
        return _blocks(self._reach, most)

    def transition_blocks(self, most: int) -> list[slice]:
        return _blocks(self._counted * REACH, most)

    def pairs(self, part: slice) -> pl.DataFrame:
        return pair_rows(_Ranges(self._files), part)

    def transitions(self, part: slice) -> pl.DataFrame:
        return transition_rows(_Ranges(self._files), part)


@dataclass(frozen=True)
class _Ranges:
    """The counts of ranges, which are read again each time they are gone through."""

    files: list[Path]

    def __iter__(self) -> Iterator[RangeCounts]:
        return (RangeCounts.load(path) for path in self.files)


def item_rows(ids: pl.DataFrame, events: IntArray, counted: IntArray, totals: ItemTotals) -> pl.DataFrame:
    """Returns the rows of items.parquet."""
    return ids.select("item", "item_id").with_columns(
        events=events, counted=counted, users=totals.users, weight=totals.weight
    )


def pair_rows(counted: Iterable[RangeCounts], part: slice) -> pl.DataFrame:
    """Returns the rows of pairs.parquet of a range of items, over some ranges of users."""
    users = _sum(shared(counts.touched, part, weighted=False) for counts in counted)
    weight = _sum(shared(counts.touched, part, weighted=True) for counts in counted)
    item = np.repeat(np.arange(part.start, part.stop), np.diff(users.indptr))
    rows = pl.DataFrame({"item": item, "other": users.indices, "users": users.data, "weight": weight.data})
    return rows.filter(pl.col("item") != pl.col("other")).cast(pl.Int64)


def transition_rows(counted: Iterable[RangeCounts], part: slice) -> pl.DataFrame:
    """Returns the rows of transitions.parquet of a range of items, over some ranges of users."""
    counts = _sum(counts.transitions[part] for counts in counted)
    item = np.repeat(np.arange(part.start, part.stop), np.diff(counts.indptr))
    return pl.DataFrame({"item": item, "next": counts.indices, "weight": counts.data}).cast(pl.Int64)


def _sum(parts: Iterator[sparse.csr_array]) -> sparse.csr_array:
    total = next(parts)
    for part in parts:
        total = total + part
    total = sparse.csr_array(total)
    total.sort_indices()
    return total


def _blocks(reach: IntArray, most: int) -> list[slice]:
    """Ranges of items with at most about `most` counts each."""
    bound = np.minimum(reach, len(reach))
    before = np.cumsum(bound) - bound
    starts = np.flatnonzero(np.diff(before // most, prepend=-1))
    return [slice(int(begin), int(end)) for begin, end in zip(starts, np.append(starts[1:], len(reach)), strict=True)]
