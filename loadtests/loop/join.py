"""Joins a random log of 10⁵ events through Parquet files in parts, and compares the outcomes with plain loops.

    python -m loadtests.loop.join [--events 100000] [--record]

The log has duplicates, late events, merges, erasures, reused request ids and events that name lists wrongly.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from typing import Annotated, Any

import polars as pl
import typer

from loadtests.common import results
from loadtests.loop import criteria
from loadtests.loop.random_logs import RandomLog, random_log
from model.online.log_folder import LogFolder
from model.online.log_schema import KINDS, frame_of
from model.online.partitions import LogRange, attributed
from model.reference.attribution import attribute_plainly
from service.cli.outermost import run_command

_WINDOW_MS = 30 * 60_000
_FIELDS = ("subject", "item_id", "type", "time_ms", "event_id", "received_ms", "value", "query")
_START_MS = 1_767_225_600_000
_FILES = 7


def main(
    events: Annotated[int, typer.Option(min=100, help="Number of events, duplicates included.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed of the log.")] = 19,
    part_kib: Annotated[int, typer.Option(min=1, help="Size of the parts, KiB of Parquet.")] = 1024,
    record: Annotated[bool, typer.Option("--record", help="Write the row into loadtests/results/loop.json.")] = False,
) -> None:
    """Compare the join with plain loops on a large random log."""
    log = random_log(seed, events=events, subjects=max(4, events // 100), items=60, hours=72, start_ms=_START_MS)
    began = time.perf_counter()
    lists, outcomes = attribute_plainly(log.exposures, log.events, log.merges, log.erased, _WINDOW_MS)
    plain_s = time.perf_counter() - began
    expected = Counter(
        (*(log.events[o.event][name] for name in _FIELDS), o.list_id, o.position, o.mark) for o in outcomes
    )
    began = time.perf_counter()
    found_lists, found, parts = _joined(log, part_kib)
    fast_s = time.perf_counter() - began
    wrong = sum(((found - expected) + (expected - found)).values()) + len(set(lists) ^ set(found_lists))
    marks = Counter(outcome.mark for outcome in outcomes)
    marked = ", ".join(f"{n:,} {mark}" for mark, n in sorted(marks.items()))
    typer.echo(
        f"{len(outcomes):,} outcomes ({marked}) of {events:,} events "
        f"in {parts} parts: {wrong} differ; plain loops {plain_s:.1f} s, join with its files {fast_s:.1f} s"
    )
    if record:
        command = f"python -m loadtests.loop.join --events {events} --record"
        results.record(results.LOOP, criteria.row(criteria.JOIN, wrong, "outcomes", command))
    raise typer.Exit(int(wrong > 0))


def _joined(log: RandomLog, part_kib: int) -> tuple[list[str], Counter[tuple[Any, ...]], int]:
    """The lists and outcomes of the join, through a log folder of several files."""
    with tempfile.TemporaryDirectory(prefix="gpt4rec-log-") as folder:
        written = LogFolder(folder)
        for kind in KINDS:
            # A reader sees events of one hour in the order of their files, so each file takes a run of them.
            rows: list[dict[str, Any]] = getattr(log, kind)
            size = -(-len(rows) // _FILES) or 1
            for number, start in enumerate(range(0, len(rows), size)):
                written.write(kind, frame_of(kind, rows[start : start + size]), f"part-{number}")
        lists: list[str] = []
        found: Counter[tuple[Any, ...]] = Counter()
        parts = 0
        for part in attributed(LogRange(written, part_bytes=part_kib << 10)):
            parts += 1
            lists += part.lists["list_id"].to_list()
            columns = [*_FIELDS, "list_id", "position", "mark"]
            found.update(part.outcomes.select(pl.col(columns)).rows())
    return lists, found, parts


if __name__ == "__main__":
    run_command(main)
