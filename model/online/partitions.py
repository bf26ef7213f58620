"""The join over a log of any size: subjects in parts, each part joined in memory.

An event may name a list of last week, and its duplicate may come tomorrow, so no day can be joined by itself; a subject
can, together with the sessions that were merged into it. A log that is larger than one part is first written to a
temporary folder, sorted by part, a file of the log at a time.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from model.online.attribution import LIST_COLUMNS, Attributed, Reading, attribute, owner_of_lists
from model.online.log_folder import LogFolder
from model.online.log_schema import Kind, empty
from model.online.made_traffic import reports_views

# Bytes of Parquet that are joined at once; in memory they are several times as many.
PART_BYTES = 64 << 20
_ROWS_HELD = 200_000


@dataclass(frozen=True, slots=True)
class LogRange:
    """What part of a log is read, and how.

    Attributes:
        log: The log.
        from_ms: Lists shown from here on, Unix milliseconds; None for the beginning of the log.
        until_ms: Lists shown before; None for the end. Events count however late they were received.
        reading: How lists and events are joined.
        part_bytes: Bytes of Parquet that are joined at once.
        histories: Whether events before the range are read as well, because histories are rebuilt from them.
        learning: Whether events are wanted for themselves: also those of lists before the range, and without any list.
    """

    log: LogFolder
    from_ms: int | None = None
    until_ms: int | None = None
    reading: Reading = field(default_factory=Reading)
    part_bytes: int = PART_BYTES
    histories: bool = False
    learning: bool = False

    @property
    def events_from_ms(self) -> int | None:
        """Where to begin with events."""
        return None if self.histories else self.from_ms

    @property
    def lists_from_ms(self) -> int | None:
        """Where to begin with lists: those just before the range explain events that would else count for others."""
        return None if self.from_ms is None else self.from_ms - self.reading.window_ms


def attributed(span: LogRange, columns: Sequence[str] = ()) -> Iterator[Attributed]:
    """Joins a range of a log, and yields the joined parts. All rows of a subject are in one part.

    Args:
        span: What is read.
        columns: Columns of the lists besides `LIST_COLUMNS`.

    Raises:
        LogError: The log cannot be read, or holds no exposures where lists are wanted.
    """
    if not span.learning:
        span.log.require_some()
    wanted = [*LIST_COLUMNS, *(name for name in columns if name not in LIST_COLUMNS)]
    merges, erased = span.log.read_all("merges"), span.log.read_all("erased")
    parts = 1 + _bytes(span) // span.part_bytes
    if parts == 1:
        tables = {kind: pl.concat([empty(kind, _columns(kind, wanted)), *_read(span, kind, wanted)]) for kind in _READ}
        yield _within(span, attribute(tables["exposures"], tables["events"], merges, erased, span.reading))
        return
    views = _views_reported(span)
    with tempfile.TemporaryDirectory(prefix="gpt4rec-join-") as folder:
        for kind in _READ:
            _spread(span, kind, wanted, _roots(merges), parts, Path(folder))
        for part in range(parts):
            tables = {kind: _part(Path(folder), kind, part, _columns(kind, wanted)) for kind in _READ}
            if len(tables["exposures"]) or len(tables["events"]):
                joined = attribute(
                    tables["exposures"], tables["events"], merges, erased, span.reading, views_reported=views
                )
                yield _within(span, joined)


_READ: tuple[Kind, ...] = ("exposures", "events")


def _columns(kind: Kind, wanted: list[str]) -> list[str] | None:
    return wanted if kind == "exposures" else None


def _read(span: LogRange, kind: Kind, wanted: list[str]) -> Iterator[pl.DataFrame]:
    if kind == "exposures":
        return span.log.read(kind, wanted, from_ms=span.lists_from_ms, until_ms=span.until_ms)
    return span.log.read(kind, from_ms=span.events_from_ms)


def _bytes(span: LogRange) -> int:
    return span.log.size("exposures", from_ms=span.lists_from_ms, until_ms=span.until_ms) + span.log.size(
        "events", from_ms=span.events_from_ms
    )


def _within(span: LogRange, joined: Attributed) -> Attributed:
    """Leaves out the lists before the range, and their events."""
    if span.from_ms is None or span.learning:
        return joined
    inside = pl.col("time_ms") >= span.from_ms
    before = joined.lists.filter(~inside)["list_id"]
    outcomes = joined.outcomes.filter(~pl.col("list_id").is_in(before.implode()).fill_null(value=False))
    return Attributed(joined.lists.filter(inside), outcomes, joined.counts)


def _views_reported(span: LogRange) -> bool:
    views = clicks = 0
    for rows in span.log.read("events", ["type"], from_ms=span.events_from_ms):
        views += int((rows["type"] == "impression").sum())
        clicks += int(rows["type"].is_in(span.reading.suspicion.types).sum())
    return reports_views(views, clicks)


def _roots(merges: pl.DataFrame) -> Mapping[str, str]:
    """One name for all subjects that merges connect, so that they are in one part."""
    above: dict[str, str] = {}

    def root(subject: str) -> str:
        while above.get(subject, subject) != subject:
            above[subject] = above.get(above[subject], above[subject])
            subject = above[subject]
        return subject

    for subject, into in merges.select("subject", "into").iter_rows():
        above[root(subject)] = root(into)
        above.setdefault(into, into)
    return {subject: root(subject) for subject in above}


def _spread(span: LogRange, kind: Kind, wanted: list[str], roots: Mapping[str, str], parts: int, folder: Path) -> None:
    """Writes the rows of a kind to the temporary folder, by part, in their order."""
    held: dict[int, list[pl.DataFrame]] = defaultdict(list)
    rows_held = files = 0

    def flush() -> None:
        for part, tables in held.items():
            pl.concat(tables).write_parquet(folder / f"{kind}-{part}-{files:06d}.parquet", compression="lz4")
        held.clear()

    for rows in _read(span, kind, wanted):
        subject = owner_of_lists("subject") if kind == "exposures" else pl.col("subject")
        part = (subject.replace(roots).hash(seed=0) % parts).alias("__part")
        for (number,), one in rows.with_columns(part).partition_by("__part", as_dict=True, include_key=False).items():
            held[int(number)].append(one)
        rows_held += len(rows)
        if rows_held >= _ROWS_HELD:
            flush()
            rows_held, files = 0, files + 1
    flush()


def _part(folder: Path, kind: Kind, part: int, columns: list[str] | None) -> pl.DataFrame:
    files = sorted(folder.glob(f"{kind}-{part}-*.parquet"))
    return pl.concat([empty(kind, columns), *(pl.read_parquet(file, memory_map=False) for file in files)])
