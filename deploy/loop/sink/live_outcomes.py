"""Live outcomes: follows what the sink reads, and shows what lists earned in /metrics and in Redis.

Lists count at once; events wait a moment, because the list that they name may be in another shard and come after
them. When the sink begins to read, at its start or after another sink, yesterday and today are read from the log,
beside its work, and then what was read meanwhile. A sink that stands by shows nothing: the one that reads does.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count
from typing import Any

from prometheus_client import Gauge

from deploy.loop.sink.live_join import LiveJoin
from deploy.loop.sink.tallies import DAY_MS, Key, Tallies
from model.online.grouped import OTHER
from model.online.log_folder import LogFolder
from model.online.log_schema import TIME_OF, Kind, LogError, entry_row
from model.online.online_report import ARM, POSITION
from service.common import logs
from service.common.errors import StoreUnavailable
from service.common.sink_metrics import SinkMetrics
from service.experiments.outcomes import Outcomes, Place, day_of, packed
from service.store.log_streams import Shard
from service.store.outcome_fields import OutcomeFields
from service.store.stream_group import StreamEntry

log = logs.get(__name__)

_HOUR_MS = 3_600_000
_TURN_S = 0.5
_SHOWN_S = 5.0
# How long events wait for their lists.
SETTLE_S = 2.0
# Entries that wait, as while the log is read; what does not fit is left to reports.
_WAITING_MOST = 200_000
# Entries that are worked off before the reading, the lease and the side door have their turn.
_AT_ONCE = 200
_TOP = 20
# What follows lists, in the order of its effect at one moment.
_FOLLOWING: tuple[Kind, ...] = ("merges", "events", "erased")
_COLUMNS = [
    "list_id",
    "request_id",
    "subject",
    "time_ms",
    "items",
    "model_version",
    "segment",
    "strategy",
    "rung",
    "arms",
]

_Row = tuple[Kind, Mapping[str, Any]]


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
        self._settling: deque[tuple[float, _Row]] = deque()
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
            for gauge in self._gauges:
                gauge.clear()

    def _reset(self) -> None:
        """Forgets all figures; what was fed since stays."""
        self._anew = False
        self._tallies = Tallies(subjects_most=self._open_most)
        self._join = LiveJoin(self._tallies, open_most=self._open_most, window_ms=self._window_ms)
        # What Redis has of the days that are held; None until it has been asked.
        self._written: dict[str, bytes] | None = None
        self._resumed = False
        self._shown_at = float("-inf")
        self._closed = 0

    @property
    def _gauges(self) -> tuple[Gauge, ...]:
        shown = self._metrics
        return shown.lists, shown.click_through, shown.conversions, shown.value

    def read_log(self) -> None:
        """Reads yesterday and today from the log."""
        today = int(time.time() * 1000) // DAY_MS
        since = (today - 1) * DAY_MS
        self._tallies.forget_before(today - 1)
        for begins in range(since, (today + 1) * DAY_MS, _HOUR_MS):
            for lists in self._log.read("exposures", _COLUMNS, from_ms=begins, until_ms=begins + _HOUR_MS):
                for row in lists.iter_rows(named=True):
                    self._take(("exposures", row))
            for rows in sorted(chain.from_iterable(map(partial(self._hour, begins), _FOLLOWING)), key=_when):
                self._take(rows)
        self._resumed = True
        if self._tallies.days():
            log.info("live_outcomes_resumed", open_lists=len(self._join))

    def _hour(self, begins: int, kind: Kind) -> Iterator[_Row]:
        rows = self._log.read_all(kind, from_ms=begins, until_ms=begins + _HOUR_MS)
        return ((kind, row) for row in rows.iter_rows(named=True))

    async def turn(self, *, settle_s: float = SETTLE_S) -> None:
        """Looks at what was fed, and at events that have waited long enough."""
        for number in count(1):
            if not self._inbox:
                break
            self._look(*self._inbox.popleft())
            if not number % _AT_ONCE:
                await asyncio.sleep(0.0)
        settled: list[_Row] = []
        before = time.monotonic() - settle_s
        while self._settling and (self._settling[0][0] <= before or len(self._settling) > _WAITING_MOST):
            settled.append(self._settling.popleft()[1])
        for number, row in enumerate(sorted(settled, key=_when), 1):
            self._take(row)
            if not number % _AT_ONCE:
                await asyncio.sleep(0.0)
        now = int(time.time() * 1000)
        yesterday = now // DAY_MS - 1
        self._join.close_before(max(now - self._open_ms, yesterday * DAY_MS))
        self._tallies.forget_before(yesterday)

    def _look(self, at: float, shard: Shard, entry: StreamEntry) -> None:
        row = _row(shard, entry)
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
            for key, one in _largest(self._tallies.outcomes(day)).items()
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
        self._written = dict(fields)

    def _is_held(self, name: str) -> bool:
        day = day_of(name)
        return day is not None and day >= self._tallies.first_day

    def figures(self) -> dict[Key, Outcomes]:
        """Returns what lists of yesterday and today earned, by dimension and group."""
        return self._tallies.together()

    def _take(self, row: _Row) -> None:
        kind, one = row
        if kind == "exposures":
            self._join.add_list(one)
        elif kind == "events":
            self._metrics.events.labels(self._join.add_event(one)).inc()
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
        if self._skipped:
            log.warning("live_outcomes_behind", entries_left_to_reports=self._skipped)
            self._skipped = 0
        for gauge in self._gauges:
            gauge.clear()
        for key, one in _largest(self.figures(), of_all=_TOP).items():
            figures = (
                one.sums.lists,
                one.click_through,
                one.per_thousand(one.conversions),
                one.per_thousand(one.value),
            )
            for gauge, figure in zip(self._gauges, figures, strict=True):
                if figure is not None:
                    gauge.labels(*key).set(figure)


def _largest(found: Mapping[Key, Outcomes], of_all: int | None = None) -> dict[Key, Outcomes]:
    """The largest groups of each dimension, the others as one; all arms and models unless `of_all` bounds them too."""
    by_dimension: dict[str, list[tuple[str, Outcomes]]] = {}
    for (dimension, group), one in found.items():
        if one.sums.lists or dimension == ARM:  # the squares of a day without lists may have changed
            by_dimension.setdefault(dimension, []).append((group, one))
    kept: dict[Key, Outcomes] = {}
    for dimension, groups in by_dimension.items():
        most = of_all or (len(groups) if dimension in ("model", ARM) else _TOP)
        order = sorted(groups, key=_position if dimension == POSITION else _size)
        for place, (group, one) in enumerate(order):
            key = (dimension, group if place < most else OTHER)
            kept[key] = kept.get(key, Outcomes()) + one
    return kept


def _size(group: tuple[str, Outcomes]) -> tuple[bool, int, str]:
    return group[0] == OTHER, -group[1].sums.lists, group[0]


def _position(group: tuple[str, Outcomes]) -> tuple[bool, int, str]:
    return not group[0].isdigit(), int(group[0]) if group[0].isdigit() else 0, group[0]


def _when(row: _Row) -> int:
    kind, one = row
    return int(one[TIME_OF[kind]])


def _row(shard: Shard, entry: StreamEntry) -> _Row | None:
    """The row of an entry; None if the writer will refuse it."""
    if entry.fields is None:
        return None
    try:
        # What the list was drawn from is of no use here.
        kind, row = entry_row(shard.stream, {name: value for name, value in entry.fields.items() if name != "c"})
        needed = {"exposures": ("list_id", "subject", "time_ms", "items"), "events": ("type", "time_ms", "received_ms")}
        if any(row.get(name) is None for name in needed.get(kind, ())):
            return None
    except (LogError, ValueError, TypeError):
        return None
    return kind, row
