"""Imports a log that is larger than memory on one machine: the data set of `model.data.importing`, row for row.

1. The files are cut into pieces, and each piece is converted and checked on its own. Its events go to partitions by
   their users.
2. Each partition loses its repeated events and is put into order.
3. The partitions merge in blocks of users, in order of first appearance.
4. The blocks become the files of a data set.

Each piece, partition and block is a step of its own. An import that was interrupted goes on behind the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from model.data.checks import Findings
from model.data.dataset_folder import check_replaceable
from model.data.errors import DataError
from model.data.formats import ImportRequest
from model.data.sources import find_files
from model.data.streamed.by_user import FIRST, Users, block_ends, merged, ordered, partition_of
from model.data.streamed.conversion import Facts, converted
from model.data.streamed.engine import Plan, Sizes, plan_of, require_streamable
from model.data.streamed.finishing import Block, refuse_nothing, write_data_set
from model.data.streamed.pieces import PieceReader
from model.data.streamed.tallies import Tallies
from model.data.streamed.work_folder import WorkFolder

# Rows of a partition that are read together; a block needs a few of them of each.
_ROW_GROUP = 1 << 15


def import_streamed(
    request: ImportRequest,
    out: Path,
    step: Callable[[str], None] = lambda _: None,
    now_ms: int | None = None,
    sizes: Sizes | None = None,
) -> dict[str, Any]:
    """Reads, checks and writes a data set, in parts that fit into memory.

    Args:
        request: The source, its format and the side tables; side tables are read whole.
        out: Folder of the data set. What is not finished lies beside it, under `.NAME.streamed`.
        step: Called with a few words before each step, for a progress display.
        now_ms: The time of the import in UTC milliseconds, by default the clock's; later times are refused.
        sizes: How large the parts are.

    Returns:
        What meta.json tells of the data set.

    Raises:
        DataError: A file is missing, damaged or cannot be used, or parts of the log read a column in different ways.
    """
    sizes, out = sizes or Sizes(), out.absolute()
    require_streamable(request)
    check_replaceable(out)
    files = [(str(file.path), *_stamp(file.path)) for file in find_files(request.sources, request.format)]
    work = WorkFolder(out.with_name(f".{out.name}.streamed"), repr((request, files, sizes, pl.__version__)))
    began = work.done("began") or {"now_ms": now_ms if now_ms is not None else time.time_ns() // 1_000_000}
    work.finish("began", began)
    try:
        return _import(request, began["now_ms"], out, work, sizes, step)
    except DataError:  # the same log would be refused again
        work.remove()
        raise


def _import(
    request: ImportRequest, now_ms: int, out: Path, work: WorkFolder, sizes: Sizes, step: Callable[[str], None]
) -> dict[str, Any]:
    step("cutting the log into pieces")
    plan = plan_of(request, now_ms, sizes)
    facts = _convert(plan, work, step)
    users = _order(plan, work, facts, step)
    blocks, tallies = _merge(plan, work, users, sizes, step)
    refuse_nothing(plan, facts, tallies)
    told = write_data_set(plan, facts, tallies, blocks, out, step)
    work.remove()
    return told


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat() if path.exists() else None
    return (0, 0) if stat is None else (stat.st_size, stat.st_mtime_ns)


def _convert(plan: Plan, work: WorkFolder, step: Callable[[str], None]) -> Facts:
    """Converts the pieces; their events go to `events/PARTITION/PIECE.parquet`."""
    facts, where = Facts(), f"{plan.pieces[0].path} …"
    with PieceReader(plan.request.text) as reader:
        for piece in plan.pieces:
            name = f"piece-{piece.number:06d}"
            told = work.done(name)
            if told is None:
                step(f"piece {piece.number + 1} of {len(plan.pieces)}")
                events, found = converted(reader.read(piece), piece, plan.columns, plan.request, plan.now_ms)
                told = found.to_json()
                events = events.with_columns(partition_of(plan.partitions).alias("#partition"))
                for (partition,), part in events.partition_by("#partition", as_dict=True, include_key=False).items():
                    folder = work.folder(f"events/{partition:04d}")
                    part.write_parquet(folder / f"{piece.number:06d}.parquet", compression="lz4", statistics=False)
                work.finish(name, told)
            facts.add(Facts.from_json(told))
            facts.check(where)
    facts.check_losses(where, plan.request.rules.allow_loss)
    return facts


def _order(plan: Plan, work: WorkFolder, facts: Facts, step: Callable[[str], None]) -> list[Users]:
    """Puts the partitions into order, `ordered/PARTITION.parquet`, and returns their users."""
    has_time, users = "timestamp" in facts.held, []
    for partition in range(plan.partitions):
        name, path = f"ordered-{partition:04d}", work.folder("ordered") / f"{partition:04d}"
        told = work.done(name)
        if told is None:
            step(f"partition {partition + 1} of {plan.partitions}")
            findings = Findings()
            files = sorted(work.folder(f"events/{partition:04d}").glob("*.parquet"))
            if files:
                events = ordered(pl.read_parquet(files), findings, has_time=has_time)
                events.write_parquet(path.with_suffix(".parquet"), compression="lz4", row_group_size=_ROW_GROUP)
                here = Users.of(events)
                np.save(path.with_suffix(".npy"), np.stack([here.first, here.events]))
            told = {"dropped": findings.dropped, "events": bool(files)}
            work.finish(name, told)
            for file in files:
                file.unlink()
        facts.add(Facts(dropped=told["dropped"], default_type=facts.default_type))
        first, events_of = np.load(path.with_suffix(".npy")) if told["events"] else np.zeros((2, 0), np.int64)
        users.append(Users(first, events_of))
    return users


def _merge(
    plan: Plan, work: WorkFolder, users: Sequence[Users], sizes: Sizes, step: Callable[[str], None]
) -> tuple[list[Block], Tallies]:
    """Merges the partitions into the blocks of the data set."""
    tallies, blocks, begin = Tallies(), [], 0
    ends = block_ends(users, sizes.block)
    paths = [work.folder("ordered") / f"{partition:04d}.parquet" for partition in range(plan.partitions)]
    for number, end in enumerate(ends):
        block, name = Block(work.folder("blocks"), number), f"block-{number:06d}"
        told = work.done(name)
        if told is None:
            step(f"block {number + 1} of {len(ends)}")
            told = block.write(_block(paths, users, begin, end)).to_json()
            work.finish(name, told)
        tallies.add(Tallies.from_json(told))
        blocks.append(block)
        begin = end
    return blocks, tallies


def _block(paths: Sequence[Path], users: Sequence[Users], begin: int, end: int) -> pl.DataFrame:
    parts = []
    for path, of in zip(paths, users, strict=True):
        rows = of.rows(begin, end)
        if rows.stop > rows.start:
            parts.append(pl.scan_parquet(path).slice(rows.start, rows.stop - rows.start).collect())
    return merged(parts).drop(FIRST)
