"""Live outcomes: follows what the sink reads, and shows what lists earned in /metrics and in Redis.

Lists count at once; events wait a moment, because the list that they name may be in another shard and come after
them. When the sink begins to read, at its start or after another sink, yesterday and today are read from the log,
and of the days before the lists of experiments, beside its work, and then what was read meanwhile. A sink that stands
by shows nothing: the one that reads does.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count

from deploy.loop.sink import largest_groups
from deploy.loop.sink.live_join import LiveJoin
from deploy.loop.sink.live_rows import HOUR_MS, LiveRow, following, lists_of, row_of, when
from deploy.loop.sink.tallies import DAY_MS, Key, Tallies
from model.online.log_folder import LogFolder
from model.online.log_schema import LogError
from service.common import logs
from service.common.errors import StoreUnavailable
from service.experiments.outcomes import Outcomes, Place, day_of, packed
from service.metrics.sink_metrics import SinkMetrics
from service.store.outcome_fields import OutcomeFields
from service.store.streams.log_streams import Shard
from service.store.streams.stream_group import StreamEntry

log = logs.get(__name__)

_TURN_S = 0.5
_SHOWN_S = 5.0
# How long events wait for their lists.
SETTLE_S = 2.0
# Entries that wait, as while the log is read; what does not fit is left to reports.
_WAITING_MOST = 200_000
# Entries that are worked off before the reading, the lease and the side door have their turn.
_AT_ONCE = 200
# How far back the subjects of experiments are read.
_RUN_DAYS = 28


class LiveOutcomes:
    """Joins what the sink reads; start `run` as a background task."""

    def __init__(
        self,
        folder: LogFolder,
        shared: OutcomeFields,
        metrics: SinkMetrics,
        *,
        open_most: int,
        open_ms: int,
        window_ms: int = 30 * 60_000,
    ) -> None:
        """Creates it without any lists.

        Args:
            folder: The log, which is read once at the beginning.
            shared: Where the service reads the outcomes.
            metrics: Of the sink.
            open_most: Lists that events may be joined to.
            open_ms: How long they may.
            window_ms: How much older than an event that names neither list nor request its list may be.
        """
        self._log, self._shared, self._metrics, self._open_ms = folder, shared, metrics, open_ms
        self._open_most, self._window_ms = open_most, window_ms
        self._inbox: deque[tuple[float, Shard, StreamEntry]] = deque()
        self._settling: deque[tuple[float, LiveRow]] = deque()
        self._skipped = 0
        self._reads, self._anew = asyncio.Event(), False
        self._reset()

    def begin(self) -> None:
        """This process reads the streams from now on."""
        self._reads.set()

    def stand_by(self) -> None:
        """Another process reads the streams: what was fed is pending, or in the log, when this one begins again."""
        self._reads.clear()
        self._anew = True
        self._inbox.clear()
        self._settling.clear()

    def feed(self, shard: Shard, entries: Sequence[StreamEntry]) -> None:
        """Takes new entries; they are looked at later."""
        now = time.monotonic()
        for entry in entries:
            if len(self._inbox) >= _WAITING_MOST:
                self._skipped += 1
            else:
                self._inbox.append((now, shard, entry))

    async def run(self) -> None:
        """Waits until this process reads, reads the log, and then follows until another reads, or it is cancelled."""
        while True:
            await self._reads.wait()
            self._reset()
            try:
                await asyncio.to_thread(self.read_log)
            except Exception as error:  # a file may be damaged: the sink goes on, and so do the figures from here on
                log.error("live_outcomes_begin_anew", detail=f"{type(error).__name__}: {error}"[:300])
            while not self._anew:
                await self.turn()
                if not self._anew and time.monotonic() - self._shown_at >= _SHOWN_S:
                    await self.show()
                await asyncio.sleep(_TURN_S)
            largest_groups.show(self._metrics, {})

    def _reset(self) -> None:
        """Forgets all figures; what was fed since stays."""
        self._anew = False
        self._tallies = Tallies(subjects_most=self._open_most)
        self._join = LiveJoin(self._tallies, open_most=self._open_most, window_ms=self._window_ms)
        # What Redis has of the days that are held; None until it has been asked.
        self._written: dict[str, bytes] | None = None
        self._resumed = False
        # Whether Redis lacks what was read of earlier days, which are kept until it has it.
        self._owes_runs = False
        self._shown_at = float("-inf")
        self._closed = 0

    def read_log(self) -> None:
        """Reads yesterday and today from the log, and of the days before the lists of experiments."""
        today = int(time.time() * 1000) // DAY_MS
        tallies, whole = self._tallies, True
        tallies.whole_from = today - 1
        tallies.forget_before(today - _RUN_DAYS)
        for day in range(today - _RUN_DAYS, today + 1):
            tallies.runs.forget_idle(day)
            for begins in range(day * DAY_MS, (day + 1) * DAY_MS, HOUR_MS):
                try:
                    self._read_hour(begins, arms_only=day < today - 1)
                except LogError as error:
                    log.error("live_outcomes_lack_an_hour", detail=str(error)[:300])
                    whole = False
            if day < today - 1:  # what was counted when these days were today
                self._closed = self._join.closed_early
                tallies.unnamed.clear()
        self._resumed, self._owes_runs = whole, True
        if tallies.days():
            log.info("live_outcomes_resumed", open_lists=len(self._join))

    def _read_hour(self, begins: int, *, arms_only: bool) -> None:
        for row in lists_of(self._log, begins, arms_only=arms_only):
            self._take(row)
        if not arms_only:
            for row in following(self._log, begins):
                self._take(row)
        elif len(self._join):
            for row in following(self._log, begins):
                self._take(row, counted=False)
            self._join.close_before(begins + HOUR_MS - self._open_ms)

    async def turn(self, *, settle_s: float = SETTLE_S) -> None:
        """Looks at what was fed, and at events that have waited long enough."""
        for number in count(1):
            if not self._inbox:
                break
            self._look(*self._inbox.popleft())
            if not number % _AT_ONCE:
                await asyncio.sleep(0.0)
        settled: list[LiveRow] = []
        before = time.monotonic() - settle_s
        while self._settling and (self._settling[0][0] <= before or len(self._settling) > _WAITING_MOST):
            settled.append(self._settling.popleft()[1])
        for number, row in enumerate(sorted(settled, key=when), 1):
            self._take(row)
            if not number % _AT_ONCE:
                await asyncio.sleep(0.0)
        now = int(time.time() * 1000)
        yesterday = now // DAY_MS - 1
        self._join.close_before(max(now - self._open_ms, yesterday * DAY_MS))
        if not self._owes_runs:
            self._tallies.forget_before(yesterday)

    def _look(self, at: float, shard: Shard, entry: StreamEntry) -> None:
        row = row_of(shard, entry)
        if row is None:
            return
        if row[0] == "exposures":
            self._take(row)
        else:
            self._settling.append((at, row))
        if shard.stream == "exposures" and row[0] == "erased":
            self._take(row)

    async def show(self) -> None:
        """Shows the figures in the metrics, and writes those that have changed to Redis."""
        self._shown_at = time.monotonic()
        self._show_metrics()
        found = {
            Place(day, *key): one
            for day in self._tallies.days()
            for key, one in largest_groups.largest(self._tallies.outcomes(day), all_named=True).items()
        }
        fields = packed(found)
        try:
            await self._write(fields)
        except StoreUnavailable as error:
            log.warning("live_outcomes_not_shared", reason=error.reason)

    async def _write(self, fields: Mapping[str, bytes]) -> None:
        """Writes what has changed, and takes back what counts no more; days that are over stay as they are."""
        if self._written is None:
            # A process before this one may have shown groups that are gone. Where the log could not be read, what it
            # showed of them is all that there is.
            self._written = dict(await self._shared.read()) if self._resumed else {}
        changed = {name: body for name, body in fields.items() if self._written.get(name) != body}
        gone = [name for name in self._written.keys() - fields.keys() if self._is_held(name)]
        if changed or gone:
            self._written |= dict.fromkeys(changed, b"")  # of a call that fails nobody knows what it wrote
            await self._shared.write(changed, gone)
        self._written, self._owes_runs = dict(fields), False

    def _is_held(self, name: str) -> bool:
        """Whether the figures of a field are known in full, so that one that is not there is gone."""
        day = day_of(name)
        return day is not None and day >= max(self._tallies.first_day, self._tallies.whole_from)

    def figures(self) -> dict[Key, Outcomes]:
        """Returns what lists of yesterday and today earned, by dimension and group."""
        return self._tallies.together()

    def _take(self, row: LiveRow, *, counted: bool = True) -> None:
        kind, one = row
        if kind == "exposures":
            self._join.add_list(one)
        elif kind == "events":
            mark = self._join.add_event(one)
            if counted:
                self._metrics.events.labels(mark).inc()
        elif kind == "merges":
            self._join.merge(one["subject"], one["into"], one["merged_ms"])
        else:
            self._join.erase(one["subject"], one["erased_ms"])

    def _show_metrics(self) -> None:
        metrics = self._metrics
        metrics.open_lists.set(len(self._join))
        metrics.closed_early.inc(self._join.closed_early - self._closed)
        self._closed = self._join.closed_early
        for dimension, lists in self._tallies.unnamed.items():
            metrics.unnamed.labels(dimension).inc(lists)
            detail = "a day has too many groups of this dimension; their lists count as (other)"
            log.warning("groups_not_told_apart", dimension=dimension, lists=lists, detail=detail)
        self._tallies.unnamed.clear()
        if left_out := self._tallies.runs.take_left_out():
            log.warning("experiment_subjects_left_out", lists=left_out)
        if self._skipped:
            log.warning("live_outcomes_behind", entries_left_to_reports=self._skipped)
            self._skipped = 0
        largest_groups.show(metrics, self.figures())
