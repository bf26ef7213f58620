"""What the log needs besides new files: erased subjects leave the old ones, and old hours are deleted.

An erasure is at work until every file without its subject is in place; then its row is written again under a name that
begins with `done_`, and the file that it was in is removed. So a crash in between repeats some of the work, and
forgets none of it. A file that cannot be read holds the erasures at work, and nothing else: all other files are without
the subjects meanwhile. Rows of erasures stay for good: they say what must not come back.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Protocol

import polars as pl

from deploy.loop.sink.recent_erasures import RecentErasures
from model.online.attribution import without_erased
from model.online.log_folder import LogFolder
from model.online.log_schema import TIME_OF, Kind, LogError, empty, frame_of
from service.common import logs
from service.common.errors import StoreUnavailable
from service.metrics.sink_metrics import SinkMetrics
from service.store.erasure_list import ErasureList

log = logs.get(__name__)

DONE = "done_"
# Merges last: they say whose lists and events those of a session were.
_KINDS: tuple[Kind, ...] = ("exposures", "events", "merges")
_DAY_MS = 86_400_000
# Erasures of so long ago are held against what comes late.
_RECENT_MS = 2 * _DAY_MS
_TURN_S = 60.0
# An erasure that failed is tried again after so long; it looks at every file.
_AGAIN_S = 900.0
# Files that an error names.
_NAMED_MOST = 5
# An erasure that the streams have not brought for so long will not come through them.
_LATE_MS = 600_000


class ErasableTopic(Protocol):
    """Where lists are copied to (`service.intake.exposures.ExposureTopic`)."""

    async def erase(self, erased: Mapping[str, int]) -> int:
        """Writes a tombstone for every list that these subjects were shown until their times, in milliseconds."""


class Housekeeping:
    """Erases, and deletes what is too old."""

    def __init__(
        self,
        folder: LogFolder,
        metrics: SinkMetrics,
        erased: RecentErasures,
        *,
        in_lane: Callable[[Callable[[], Any]], Awaitable[Any]],
        may_act: Callable[[], bool],
        topic: ErasableTopic | None = None,
        listed: ErasureList | None = None,
        retention_days: int = 0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Connects the parts.

        Args:
            folder: The log.
            metrics: Of the sink.
            erased: Learns of the erasures of the last days.
            in_lane: Runs what changes the log in the one thread that may.
            may_act: Says whether this process is the one that writes.
            topic: Where lists were copied to.
            listed: What the service says of erasures beside the streams, which may be trimmed.
            retention_days: Days after which hours are deleted; 0 keeps them.
            wall_clock: Epoch seconds.
        """
        self._log, self._metrics, self._erased = folder, metrics, erased
        self._in_lane, self._may_act, self._topic, self._listed = in_lane, may_act, topic, listed
        self._retention_days, self._wall_clock = retention_days, wall_clock
        self._unread: dict[str, LogError] = {}

    async def run(self, caught_up: asyncio.Event, erase_s: float, *, erase_now: bool) -> None:
        """Keeps house until cancelled: erases as often as asked, and looks for old hours every minute."""
        prepared, next_erasure = False, time.monotonic() + (0.0 if erase_now else min(erase_s, _TURN_S))
        await caught_up.wait()
        while True:
            try:
                if not prepared:
                    await self._in_lane(self._prepare)
                    prepared = True
                if self._may_act():
                    erase = time.monotonic() >= next_erasure
                    if erase:
                        next_erasure = time.monotonic() + min(erase_s, _AGAIN_S)
                    await self.keep(erase=erase)
                    if erase:
                        next_erasure = time.monotonic() + erase_s
            except Exception as error:
                self._metrics.failures.labels("log").inc()
                log.error("house_not_kept", detail=f"{type(error).__name__}: {error}"[:1000])
            await asyncio.sleep(min(_TURN_S, erase_s))

    async def keep(self, *, erase: bool, waiting_s: float | None = None) -> None:
        """Deletes hours that are too old, and erases if asked.

        Args:
            erase: Whether to erase whatever waits.
            waiting_s: Erase also where the oldest erasure has waited for so long.

        Raises:
            OSError: The folder cannot be written.
            LogError: Files are damaged. All else is done.
            ServiceError: The topic cannot be written.
        """
        self._unread = {}
        if self._retention_days:
            before = int(self._wall_clock() * 1000.0) - self._retention_days * _DAY_MS
            if removed := await self._in_lane(lambda: self._log.remove_before(before)):
                self._metrics.removed.inc(removed)
                log.info("old_hours_deleted", files=removed, days=self._retention_days)
        await self._take_listed()
        waiting = await self._in_lane(self._waiting)
        oldest_s = self._show(waiting)
        if waiting and (erase or (waiting_s is not None and oldest_s >= waiting_s)):
            await self._erase(waiting)
        if self._unread:
            raise _unreadable(self._unread)

    async def _take_listed(self) -> None:
        """Writes the erasures that the streams lost to the log, and strikes those that the log has off the list."""
        if self._listed is None:
            return
        try:
            listed = await self._listed.read()
            if not listed:
                return
            known = await self._in_lane(lambda: self._known_since(min(listed.values())))
            late_ms = int(self._wall_clock() * 1000.0) - _LATE_MS
            missed = {s: ms for s, ms in listed.items() if known.get(s, -1) < ms <= late_ms}
            if missed:
                await self._in_lane(lambda: self._write_missed(missed))
            await self._listed.remove({s: ms for s, ms in listed.items() if known.get(s, -1) >= ms or s in missed})
        except StoreUnavailable as error:
            # Files are rewritten all the same; what is listed is taken in the next turn.
            self._metrics.failures.labels("redis").inc()
            log.warning("listed_erasures_unread", detail=str(error))

    def _known_since(self, time_ms: int) -> dict[str, int]:
        rows = self._all("erased", time_ms).sort("erased_ms")
        return dict(rows.select("subject", "erased_ms").iter_rows())

    def _write_missed(self, missed: Mapping[str, int]) -> None:
        rows = frame_of("erased", [{"subject": s, "erased_ms": ms} for s, ms in sorted(missed.items())])
        name = hashlib.sha256(repr(sorted(missed.items())).encode()).hexdigest()[:32]
        self._log.write("erased", rows, f"listed_{name}")
        self._erased.add_all(rows)
        log.warning("erasures_were_trimmed", erasures=len(missed), detail="the streams lost them; the list had them")

    async def _erase(self, waiting: dict[str, pl.DataFrame]) -> None:
        """Rewrites the files without the subjects of these erasures, a file at a time, between batches."""
        erased = pl.concat(waiting.values())
        merges = await self._in_lane(lambda: self._all("merges"))
        latest = erased["erased_ms"].max()
        rewritten = 0
        for kind in _KINDS:
            paths = await self._in_lane(partial(self._log.paths, kind, until_ms=int(str(latest)) + 1))
            for path in paths:
                rewritten += await self._in_lane(partial(self._rewrite, kind, path, merges, erased))
        if self._topic is not None:
            await self._topic.erase(_with_sessions(erased, merges))
        self._metrics.rewritten.inc(rewritten)
        if any(not path.startswith("erased/") for path in self._unread):
            return
        await self._in_lane(lambda: self._done(waiting))
        self._show({})
        log.info("erasures_reached_the_files", erasures=len(erased), files_rewritten=rewritten)

    def _prepare(self) -> None:
        """Clears up after a writer that died, and learns of recent erasures."""
        if left := self._log.remove_unfinished():
            log.info("unfinished_files_removed", files=left)
        since = int(self._wall_clock() * 1000.0) - _RECENT_MS
        self._erased.add_all(self._all("erased", since))

    def _waiting(self) -> dict[str, pl.DataFrame]:
        """The files of erasures that have not reached the older files, with their rows."""
        paths = [path for path in self._log.paths("erased") if not PurePosixPath(path).name.startswith(DONE)]
        found = {path: self._file("erased", path) for path in paths}
        return {path: rows for path, rows in found.items() if rows is not None}

    def _all(self, kind: Kind, from_ms: int = 0) -> pl.DataFrame:
        """The rows of a kind since a moment, of all files that can be read."""
        parts = [self._file(kind, path) for path in self._log.paths(kind, from_ms=from_ms)]
        rows = pl.concat([empty(kind), *(part for part in parts if part is not None)])
        return rows.filter(pl.col(TIME_OF[kind]) >= from_ms)

    def _file(self, kind: Kind, path: str, columns: list[str] | None = None) -> pl.DataFrame | None:
        """The rows of a file; None if it cannot be read, which is noted, or is gone."""
        try:
            return self._log.file(kind, path, columns)
        except FileNotFoundError:  # it has become too old
            return None
        except LogError as error:
            self._unread[path] = error
            return None

    def _rewrite(self, kind: Kind, path: str, merges: pl.DataFrame, erased: pl.DataFrame) -> bool:
        """Rewrites a file if it has rows of an erased subject; returns whether it had."""
        keys = self._file(kind, path, _keys(kind))
        if keys is None:
            return False
        kept = without_erased(kind, keys.with_row_index("place"), merges, erased)["place"]
        if len(kept) == len(keys) or (rows := self._file(kind, path)) is None:
            return False
        self._log.rewrite(kind, path, rows[kept.to_list()])
        return True

    def _done(self, waiting: dict[str, pl.DataFrame]) -> None:
        for path, rows in waiting.items():
            self._log.write("erased", rows, DONE + PurePosixPath(path).stem)
            self._log.remove(path)

    def _show(self, waiting: dict[str, pl.DataFrame]) -> float:
        """Shows how many erasures wait; returns for how long the oldest has, in seconds."""
        rows = pl.concat([empty("erased"), *waiting.values()])
        self._metrics.erasures.set(len(rows))
        now_s = self._wall_clock()
        oldest_s = max(0.0, now_s - int(str(rows["erased_ms"].min())) / 1000.0) if len(rows) else 0.0
        self._metrics.oldest_erasure.set(oldest_s)
        return oldest_s


def _unreadable(found: Mapping[str, LogError]) -> LogError:
    paths = sorted(found)
    more = f" and {len(paths) - _NAMED_MOST} more" if len(paths) > _NAMED_MOST else ""
    return LogError(
        f"files of the log cannot be read, and erasures wait for them: {', '.join(paths[:_NAMED_MOST])}{more}; "
        f"the first: {found[paths[0]]}"
    )


def _with_sessions(erased: pl.DataFrame, merges: pl.DataFrame) -> dict[str, int]:
    """Until when the lists of each subject are erased; those of sessions as far as they were merged by then."""
    until: dict[str, int] = dict(erased.sort("erased_ms").select("subject", "erased_ms").iter_rows())
    for session, into, merged_ms in merges.select("subject", "into", "merged_ms").iter_rows():
        if merged_ms <= until.get(into, -1):
            until[session] = max(until.get(session, -1), merged_ms)
    return until


def _keys(kind: Kind) -> list[str]:
    return ["subject", "into", TIME_OF[kind]] if kind == "merges" else ["subject", TIME_OF[kind]]
