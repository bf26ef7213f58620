"""Writes a batch of entries to the log, so that readers see each of them once.

A file is named after its stream, its shard, and the first and the last entry of its batch. A batch holds all entries of
a shard between these two. So an entry that was given to a reader which died is in a file already if one in the folder
where it belongs has a name that spans it, whatever batches the entries are in now.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

from deploy.loop.sink.hand import Taken
from deploy.loop.sink.recent_erasures import RecentErasures
from model.online.log_folder import LogFolder
from model.online.log_schema import FORMAT, TIME_OF, Kind, LogError, entry_row, frame_of
from service.common import logs
from service.exposures.exposure import unpacked
from service.metrics.sink_metrics import SinkMetrics
from service.store.streams.log_streams import Shard

log = logs.get(__name__)

_NAME = re.compile(r"(exposures|events)-(\d+)_(\d+)-(\d+)_(\d+)-(\d+)")
# The last moment that a folder can be named after: the end of the year 9999.
_LATEST_MS = 253_402_300_800_000

Id = tuple[int, int]
_Row = tuple[Taken, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch.

    Attributes:
        done: Ids that can be acknowledged, by shard. Those of another format are left to a version that reads it.
        exposures: Lists of the batch that are in the log, as they stand in the stream.
    """

    done: dict[Shard, list[str]] = field(default_factory=dict)
    exposures: list[dict[str, Any]] = field(default_factory=list)


class BatchWriter:
    """Writes batches. One caller at a time; repeating a call is safe."""

    def __init__(self, folder: LogFolder, metrics: SinkMetrics, erased: RecentErasures) -> None:
        self._log, self._metrics, self._erased = folder, metrics, erased

    def write(self, batch: Mapping[Shard, Sequence[Taken]], *, keep_lists: bool = False) -> Written:
        """Writes a batch; when it returns, the files outlive a crash.

        Args:
            batch: All entries of each shard since the batch before.
            keep_lists: Whether the lists are wanted, to be copied elsewhere.

        Raises:
            OSError: The folder cannot be written.
            LogError: The folder cannot be used.
        """
        written = Written()
        for shard, taken in batch.items():
            written.done[shard] = []
            for run in self._runs(shard, taken):
                self._write_run(shard, run, written, keep_lists=keep_lists)
                written.done[shard] += [one.entry.id for one in run]
        return written

    def _runs(self, shard: Shard, taken: Sequence[Taken]) -> Iterator[list[Taken]]:
        """Yields the entries between those of another format, which no file may seem to have."""
        run: list[Taken] = []
        for one in taken:
            if one.entry.fields is None or one.entry.fields.get("v") == str(FORMAT).encode():
                run.append(one)
                continue
            self._refused(shard, one, "another format; it stays pending for a version that reads it")
            if run:
                yield run
            run = []
        if run:
            yield run

    def _write_run(self, shard: Shard, run: Sequence[Taken], written: Written, *, keep_lists: bool) -> None:
        by_kind = self._rows(shard, run)
        name = name_of(shard, run[0].entry.id, run[-1].entry.id)
        for _, row in by_kind.get("erased", ()):
            self._erased.add(row["subject"], row["erased_ms"])
        for kind, rows in by_kind.items():
            kept = self._kept(kind, shard, rows)
            frame = self._frame(kind, shard, kept)
            if len(frame):
                self._metrics.files.inc(len(self._log.write(kind, frame, name)))
            self._count(shard, "written", len(frame))
            if kind == "exposures" and keep_lists:
                # Also what a file has already: whoever wrote it may have died before it was copied.
                written.exposures.extend(self._decoded(rows))

    def _decoded(self, rows: Sequence[_Row]) -> Iterator[dict[str, Any]]:
        """Yields the lists as they stand in the stream, with what they were drawn from beside."""
        for one, row in rows:
            if one.entry.fields is None or self._erased.covers("exposures", row["subject"], row["time_ms"]):
                continue
            body: dict[str, Any] = orjson.loads(one.entry.fields["e"])
            body["subject"] = row["subject"]
            if (drawn := one.entry.fields.get("c")) is not None:
                body["candidates"], body["candidate_scores"] = unpacked(drawn)
            yield body

    def _rows(self, shard: Shard, run: Sequence[Taken]) -> dict[Kind, list[_Row]]:
        by_kind: dict[Kind, list[_Row]] = defaultdict(list)
        for one in run:
            if one.entry.fields is None:
                self._count(shard, "gone", 1)
                continue
            try:
                kind, row = entry_row(shard.stream, one.entry.fields)
                time_ms = row.get(TIME_OF[kind])
                if not isinstance(time_ms, int) or not 0 <= time_ms < _LATEST_MS:
                    raise LogError(f"{TIME_OF[kind]} is {time_ms!r}")
            except (LogError, ValueError, TypeError) as error:
                self._refused(shard, one, str(error))
                continue
            by_kind[kind].append((one, row))
        return by_kind

    def _count(self, shard: Shard, outcome: str, number: int) -> None:
        self._metrics.entries.labels(shard.stream, outcome).inc(number)

    def _refused(self, shard: Shard, one: Taken, why: str) -> None:
        self._count(shard, "refused", 1)
        log.error("entry_refused", stream=shard.stream, shard=shard.number, entry=one.entry.id, detail=why[:300])

    def _kept(self, kind: Kind, shard: Shard, rows: list[_Row]) -> list[_Row]:
        """Leaves out what a file has already, and what was erased."""
        spans: dict[int, list[tuple[Id, Id]]] = {}
        kept = []
        for one, row in rows:
            time_ms = row[TIME_OF[kind]]
            if one.again:
                hour = time_ms // 3_600_000
                if hour not in spans:
                    spans[hour] = spans_of(shard, self._log.names(kind, time_ms))
                entry = id_of(one.entry.id)
                if any(first <= entry <= last for first, last in spans[hour]):
                    self._count(shard, "repeated", 1)
                    continue
            if self._erased.covers(kind, row["subject"], time_ms):
                self._count(shard, "erased", 1)
                continue
            kept.append((one, row))
        return kept

    def _frame(self, kind: Kind, shard: Shard, kept: list[_Row]) -> pl.DataFrame:
        """The rows as a table, without those whose fields have other types."""
        try:
            return frame_of(kind, (row for _, row in kept))
        except LogError:
            frames = [frame_of(kind, [])]
        for one, row in kept:
            try:
                frames.append(frame_of(kind, [row]))
            except LogError as error:
                self._refused(shard, one, str(error))
        return pl.concat(frames)


def name_of(shard: Shard, first: str, last: str) -> str:
    """Returns the name of the files of a batch; names sort as the batches do."""
    ends = ["{:013d}-{:06d}".format(*id_of(one)) for one in (first, last)]
    return f"{shard.stream}-{shard.number}_{ends[0]}_{ends[1]}"


def spans_of(shard: Shard, names: Sequence[str]) -> list[tuple[Id, Id]]:
    """Returns the first and the last entry of each file of a shard, from the names of files."""
    found = [_NAME.fullmatch(name) for name in names]
    return [
        ((int(one[3]), int(one[4])), (int(one[5]), int(one[6])))
        for one in found
        if one is not None and (one[1], int(one[2])) == (shard.stream, shard.number)
    ]


def id_of(text: str) -> Id:
    """Returns the two numbers of an id of a stream."""
    ms, _, sequence = text.partition("-")
    return int(ms), int(sequence or 0)
