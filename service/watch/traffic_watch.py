"""Watches lists and events behind the answers: counts them each second, and compares hours and days with the baseline.

Hooks only append to a bounded queue. Once a second the queue is counted; when an hour or a day (UTC) is over, its
figures are published and stay until the next one is over. When another model comes, events, visits and the items listed
are counted on; how the model before listed is compared with its own baseline at once. Counts are of this process alone,
and a restart loses the hour and the day that had begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from prometheus_client import Gauge

from service.artifact.array_types import IntArray
from service.common import logs
from service.common.deadline import Clock
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.metrics.watch_metrics import WATCH_BASELINES
from service.watch.baseline import WatchBaseline, WatchBaselineError, read_baseline
from service.watch.counting import Counting, SeenEvent, ShownList
from service.watch.drift import Drift, drifts
from service.watch.figures import figures
from service.watch.item_groups import ItemGroups
from service.watch.statistics import bins_of
from service.watch.window import Window

log = logs.get(__name__)

# Lists, and events, that are counted each second; further ones are skipped and counted as such.
_PENDING_MAX = 2048
_HOUR_S, _DAY_S = 3600, 86_400
# Different names of categories in metrics over the life of the process, whatever models come and go.
_NAMES_MAX = 64
WINDOWS = {"hour": _HOUR_S, "day": _DAY_S}
# Figures of the present hour for the console are at most this old, and older for large catalogues.
_FRESH_S = 2.0


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What watching a model needs of it.

    Attributes:
        state: What is known of the baseline, one of `WATCH_BASELINES`.
        index: Index of each item by its id.
        rows: [n] index of each item of the model before, −1 for those that are not in the catalogue any more.
    """

    version: str
    groups: ItemGroups
    baseline: WatchBaseline | None
    state: str
    index: Mapping[str, int]
    rows: IntArray

    @classmethod
    def of(cls, model: ServedModel, before: Mapping[str, int]) -> _Prepared:
        """Groups the items of a model and reads its baseline; the log says if there is none.

        Args:
            model: The model.
            before: Index of each item of the model before by its id.
        """
        artifact = model.engine.artifact
        groups, baseline = ItemGroups.of(artifact.catalogue, artifact.popularity), None
        try:
            baseline = read_baseline(artifact.manifest, bins_of(groups))
            state = "missing" if baseline is None else "ok"
            if baseline is None:
                log.info("no_watch_baseline", model_version=model.version, detail="the artefact has none: no drift")
        except WatchBaselineError as error:
            state = "unreadable"
            log.warning("watch_baseline_unreadable", model_version=model.version, detail=str(error))
        index = model.vocabulary.item_index
        return cls(model.version, groups, baseline, state, index, _rows(before, index))


def _rows(before: Mapping[str, int], now: Mapping[str, int]) -> IntArray:
    """The index that each item has now, by the index that it had; −1 where it has none."""
    rows = np.full(max(before.values(), default=-1) + 1, -1, np.int64)
    for item_id, row in before.items():
        rows[row] = now.get(item_id, -1)
    return rows


class TrafficWatch:
    """Watches the model in service. Not thread-safe: use it from the event loop; start `run` as a background task."""

    def __init__(
        self, model: Callable[[], ServedModel], metrics: Metrics, *, on: bool = True, wall_clock: Clock = time.time
    ) -> None:
        """Begins the first hour and day.

        Args:
            model: The model in service.
            metrics: Shows the figures.
            on: Whether anything is watched.
            wall_clock: Returns the time in epoch seconds.
        """
        self._model, self._metrics, self._on, self._wall_clock = model, metrics, on, wall_clock
        self._lists: list[ShownList] = []
        self._events: list[SeenEvent] = []
        self._names: set[str] = set()
        self._version: str | None = None
        self._summary: tuple[float, dict[str, Any]] = (0.0, {})
        self._index: Mapping[str, int] = {}
        if on:
            self._begin(_Prepared.of(model(), self._index))

    # -- hooks

    def shown(self, version: str, one: ShownList) -> None:
        """Notes a list, when its answer is made. Lists of other models than that in service are not watched."""
        if not self._on:
            return
        if len(self._lists) < _PENDING_MAX and version == self._version:
            self._lists.append(one)
        else:
            self._metrics.watch.skipped.labels("lists").inc()

    def happened(self, events: Iterable[SeenEvent]) -> None:
        """Notes acknowledged events."""
        if not self._on:
            return
        for event in events:
            if len(self._events) < _PENDING_MAX:
                self._events.append(event)
            else:
                self._metrics.watch.skipped.labels("events").inc()

    # -- the background

    async def run(self) -> None:
        """Counts each second until cancelled."""
        while self._on:
            await asyncio.sleep(1.0)
            try:
                model = self._model()
                if model.version != self._version:  # grouping a million items takes a while
                    self._change(await asyncio.to_thread(_Prepared.of, model, self._index))
                self.note()
            except Exception as error:  # a fault of the watch must not end it, nor the process
                log.error("watch_broke", **logs.where(error))

    def note(self) -> None:
        """Counts what is waiting, and publishes the windows that are over."""
        model = self._model()
        if model.version != self._version:
            self._change(_Prepared.of(model, self._index))
            return
        self._index = model.vocabulary.item_index
        self._count()

    def _count(self) -> None:
        now = self._wall_clock()
        lists, events = self._lists, self._events
        self._lists, self._events = [], []
        for name, length in WINDOWS.items():
            if int(now // length) != self._number[name]:
                self._end(name, int(now // length))
        windows = tuple(self._windows.values())
        if lists:
            for segment, (bands, categories) in self._counting.lists(lists, windows, now).items():
                self._expose(segment, bands, categories)
        if events:
            self._counting.events(events, self._index, windows, now)

    def summary(self) -> dict[str, Any]:
        """Returns the figures of the hour that has begun, and what drifted in the last one and the last day."""
        if not self._on:
            return {}
        now = time.monotonic()
        made, summary = self._summary
        if not summary or now - made > _FRESH_S + len(self._counting.groups.band) / 50_000:
            self._summary = (now, summary := self._summed())
        return summary

    # -- windows

    def _begin(self, prepared: _Prepared) -> None:
        """Begins the first windows."""
        self._watch(prepared)
        now = self._wall_clock()
        self._number = {name: int(now // length) for name, length in WINDOWS.items()}
        self._windows = {name: self._counting.window() for name in WINDOWS}
        self._drifted: dict[str, dict[str, Drift]] = {}
        self._yesterday: Window | None = None
        self._published: dict[str, set[tuple[Gauge, str]]] = {name: set() for name in WINDOWS}

    def _watch(self, prepared: _Prepared) -> None:
        self._version, self._state, self._baseline = prepared.version, prepared.state, prepared.baseline
        self._counting = Counting(prepared.groups, self._baseline.score_edges if self._baseline else None)
        self._index = prepared.index
        self._summary = (0.0, {})
        self._metrics.one_hot(self._metrics.watch.baseline, WATCH_BASELINES, self._state)

    def _change(self, prepared: _Prepared) -> None:
        """Goes on with another model.

        What has drifted in the hour until now is told at once: how the model before listed begins anew.
        """
        self._count()
        found = {} if self._baseline is None else drifts(self._windows["hour"], self._baseline)
        early = {name: drift for name, drift in found.items() if drift.drifted}
        self._show("hour", self._of_drifts("hour", early))
        self._drifted["hour"] = {**self._drifted.get("hour", {}), **early}
        before = self._counting
        self._watch(prepared)
        self._counting.go_on(before)
        self._windows = {name: self._moved(window, before, prepared) for name, window in self._windows.items()}
        self._yesterday = self._yesterday and self._moved(self._yesterday, before, prepared)
        if self._baseline is None:  # nothing tells when it is over
            self._drifted = {}
            shown = self._metrics.watch
            for gauge in (shown.drift, shown.drift_threshold, shown.drifted):
                gauge.clear()

    def _moved(self, window: Window, before: Counting, prepared: _Prepared) -> Window:
        return window.moved(before.bins, self._counting.bins, prepared.rows, len(prepared.groups.band))

    def _end(self, name: str, number: int) -> None:
        """Publishes a window that is over, and begins the next one."""
        window = self._windows[name]
        previous = self._yesterday if name == "day" else None
        self._publish(name, window, previous)
        if name == "day":
            self._yesterday = window
        else:
            self._counting.next_hour()
        self._windows[name] = self._counting.window()
        self._number[name] = number

    def _publish(self, name: str, window: Window, yesterday: Window | None) -> None:
        metrics = self._metrics.watch
        for gauge, statistic in self._published.pop(name):
            with contextlib.suppress(KeyError):  # cleared with its model
                gauge.remove(statistic, name)
        self._published[name] = set()
        metrics.watched.labels("lists", name).set(window.lists)
        metrics.watched.labels("events", name).set(window.events)
        values = [(metrics.figures, *one) for one in figures(window, self._n_items(), yesterday).items()]
        found = {} if self._baseline is None else dict(drifts(window, self._baseline))
        self._show(name, [*values, *self._of_drifts(name, found)])
        self._drifted[name] = {key: drift for key, drift in found.items() if drift.drifted}

    def _of_drifts(self, window: str, found: Mapping[str, Drift]) -> list[tuple[Gauge, str, float]]:
        """What gauges show of drifts; those that are more than chance are logged."""
        metrics, values = self._metrics.watch, list[tuple[Gauge, str, float]]()
        for drift in found.values():
            values.append((metrics.drift, drift.statistic, drift.divergence))
            values.append((metrics.drift_threshold, drift.statistic, drift.threshold))
            values.append((metrics.drifted, drift.statistic, float(drift.drifted)))
            if drift.drifted:
                log.warning("drift", window=window, **drift.to_json())
        return values

    def _show(self, name: str, values: Iterable[tuple[Gauge, str, float]]) -> None:
        for gauge, statistic, value in values:
            gauge.labels(statistic, name).set(value)
            self._published[name].add((gauge, statistic))

    def _n_items(self) -> int:
        return len(self._model().vocabulary.item_index)

    def _expose(self, segment: str, bands: IntArray, categories: IntArray) -> None:
        """Counts listed items by segment and group."""
        names = self._counting.bins
        for band, n in zip(names["list_popularity"], bands.tolist(), strict=True):
            if n:
                self._metrics.watch.shown_items.labels(segment, band).inc(n)
        for category, n in zip(names["list_categories"], categories.tolist(), strict=True):
            if n:
                self._metrics.watch.shown_categories.labels(segment, self._named(category)).inc(n)

    def _named(self, category: str) -> str:
        if category not in self._names and len(self._names) >= _NAMES_MAX:
            return "other"
        self._names.add(category)
        return category

    def _summed(self) -> dict[str, Any]:
        window = self._windows["hour"]
        found = {} if self._baseline is None else drifts(window, self._baseline)
        over = {name: [drift.to_json() for drift in drifted.values()] for name, drifted in self._drifted.items()}
        return {
            "baseline": self._state,
            "lists": window.lists,
            "events": window.events,
            "figures": {name: round(v, 4) for name, v in figures(window, self._n_items(), None).items()},
            "drift": [drift.to_json() for drift in found.values()],
            "over": over,
        }
