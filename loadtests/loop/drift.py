"""Simulates quiet days and days with a shift, and looks at which windows the service tells drift.

    python -m loadtests.loop.drift --artifact DIR --data DIR [--days 30] [--visits 300] [--record]

The traffic is fed to `service.watch` with a clock that is moved on, so a month takes minutes. Each of its users behaves
as one user of the data for all of that time, and returns: some often, most rarely. A visit is one hour of that user:
its events, and one to three times the list that the model makes for the user's test question. Their number follows the
time of day and the day of the week. The baseline comes from other questions (validation) and from the training part.
Shifts begin at noon: lists and events of users of one category, events on items that the model does not know, events of
another type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from loadtests.common import results
from loadtests.loop import criteria
from model.data.dataset import Dataset, Sequences, sequences
from model.data.split import Split
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import EngineJobs, batches_of
from model.training.config import TrainConfig
from model.training.run_folder import split_of
from service.artifact.array_types import IntArray
from service.artifact.features import EVENT_TYPES
from service.cli.outermost import run_command
from service.engine.baseline_engine import BaselineEngine
from service.engine.engine import Engine
from service.engine.factory import open_engine
from service.engine.run_groups import result_of
from service.metrics.service_metrics import Metrics
from service.watch.counting import SeenEvent, ShownList, place_of
from service.watch.traffic_watch import WINDOWS, TrafficWatch

_HOUR_S = 3600.0
_DAY_H, _WEEK_D = 24, 7
# Visits of a day at the weekend, in those of another day.
_WEEKEND = 1.5
# Users of the traffic in visits of an hour. How often each comes is drawn from a gamma law of this shape: the most
# active tenth makes nearly two fifths of the visits.
_USERS, _ACTIVITY = 20.0, 0.7
# Monday, 2026-01-05, 00:00 UTC.
_START_S = 1_767_571_200.0
_SHIFT_AT_H = 12
# Lists and events that are counted at a time: fewer than the service takes in a second, so that none is skipped.
_AT_ONCE = 1000
# What the alert leaves out (deploy/prometheus/watch.yml).
_SHOWN_ONLY = ("list_scores",)
_K = 10


@dataclass(frozen=True)
class Visit:
    """One hour of a user.

    Attributes:
        user: Whose it is, in the data.
        history: Number of events before it.
        items: [events] item ids.
        types: [events] event types.
        listed: [k] catalogue indices of the list.
        scores: [k] its scores; None for a drawn list.
        seen: [m] items of the history, ascending.
        main: The commonest first category of the list.
    """

    user: int
    history: int
    items: Sequence[str]
    types: Sequence[str]
    listed: IntArray
    scores: Any
    seen: IntArray
    main: str | None


@dataclass
class _Clock:
    now: float = _START_S

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class _Watched:
    """What is watched of a model."""

    version: str
    engine: Engine | BaselineEngine
    vocabulary: Any


@dataclass
class Simulation:
    """Traffic that is watched.

    Attributes:
        engine: The model.
        visits: What visits are drawn from.
        rate: Visits an hour, on average.
        alerts: Window, statistic and hour of all that drifted.
        judged: Windows and statistics that were large enough to be judged.
        hour: Hours that have passed.
    """

    engine: Engine | BaselineEngine
    visits: Sequence[Visit]
    rate: float
    seed: int = 0
    alerts: list[tuple[str, str, int]] = field(default_factory=list)
    judged: int = 0
    hour: int = 0

    def __post_init__(self) -> None:
        self._rng, self._clock, self._metrics = np.random.default_rng(self.seed), _Clock(), Metrics()
        model: Any = _Watched(self.engine.model_version, self.engine, self.engine.artifact.vocabulary)
        self._watch = TrafficWatch(lambda: model, self._metrics, wall_clock=self._clock)
        self._lists = 0
        names = [visit.main for visit in self.visits]
        self._most = max(sorted({name for name in names if name}), key=names.count, default=None)
        self._population()
        if self._watch.summary()["baseline"] != "ok":
            raise typer.BadParameter("the artefact has no baseline; export it again", param_hint="--artifact")

    def _population(self) -> None:
        """Draws the users of the traffic: whom of the data each behaves as, and how often each comes."""
        of_user: dict[int, list[Visit]] = {}
        for visit in self.visits:
            of_user.setdefault(visit.user, []).append(visit)
        kinds = [of_user[user] for user in sorted(of_user)]
        n = max(1, int(_USERS * self.rate))
        self._users = [kinds[kind] for kind in self._rng.integers(len(kinds), size=n).tolist()]
        # Who has more visits in the data comes more often here too, so that a visit is like one of the data.
        activity = self._rng.gamma(_ACTIVITY, size=n) * [len(visits) for visits in self._users]
        self._until = np.cumsum(activity) / activity.sum()
        self._one_kind = [user for user, visits in enumerate(self._users) if visits[0].main == self._most]

    def hours(self, hours: int, shift: str = "") -> None:
        """Simulates some hours, with a shift if it is named."""
        for _ in range(hours):
            busy = 1.0 + 0.8 * np.sin(2.0 * np.pi * (self.hour % _DAY_H - 9) / _DAY_H)
            busy *= _WEEKEND if self.hour // _DAY_H % _WEEK_D >= _WEEK_D - 2 else 1.0
            waiting = 0
            for _ in range(int(self._rng.poisson(self.rate * busy))):
                waiting += self._visit(shift)
                if waiting > _AT_ONCE:
                    self._watch.note()
                    waiting = 0
            self._watch.note()
            self._clock.now += _HOUR_S
            self.hour += 1
            self._watch.note()
            self._look()

    def _visit(self, shift: str) -> int:
        """Makes a visit; returns the number of its lists and events."""
        user = self._drawn(shift)
        visits = self._users[user]
        visit = shifted(visits[int(self._rng.integers(len(visits)))], shift, self._rng)
        place = place_of(f"u{user}")
        lists = int(self._rng.integers(1, 4))
        for _ in range(lists):
            self._lists += 1
            one = ShownList(f"L{self._lists}", place, "all", visit.listed, visit.scores, visit.seen, visit.history)
            self._watch.shown(self.engine.model_version, one)
        self._watch.happened(
            SeenEvent(place, kind, item, None) for kind, item in zip(visit.types, visit.items, strict=True)
        )
        return lists + len(visit.items)

    def _drawn(self, shift: str) -> int:
        """Who comes; with the shift of categories, most are users whose lists are of the commonest one."""
        if shift == "categories" and self._rng.random() < 0.6:
            return self._one_kind[int(self._rng.integers(len(self._one_kind)))]
        return min(int(np.searchsorted(self._until, self._rng.random())), len(self._users) - 1)

    def _look(self) -> None:
        """Notes what drifted in the windows that have just ended."""
        for name, length in WINDOWS.items():
            if self.hour % int(length // _HOUR_S):
                continue
            for family in self._metrics.watch.drifted.collect():
                for sample in family.samples:
                    if sample.labels["window"] == name and sample.labels["statistic"] not in _SHOWN_ONLY:
                        self.judged += 1
                        if sample.value:
                            self.alerts.append((name, sample.labels["statistic"], self.hour))


def shifted(visit: Visit, shift: str, rng: np.random.Generator) -> Visit:
    """Returns a visit under a shift: a fifth of its events is on new items, or half of them are of a rare type."""
    n = len(visit.items)
    if shift == "new items":
        new = rng.random(n) < 0.2
        return replace(visit, items=[f"new-{rng.integers(50)}" if new[i] else visit.items[i] for i in range(n)])
    if shift == "event types":
        rare = min(EVENT_TYPES, key=visit.types.count)
        other = rng.random(n) < 0.5
        return replace(visit, types=[rare if other[i] else visit.types[i] for i in range(n)])
    return visit


def visits_of(engine: Engine | BaselineEngine, split: Split, most: int = 2000) -> list[Visit]:
    """Returns the visits of the test users of a data set, with the lists of their test questions."""
    asked, log = split.test.sample(most), split.sequences
    histories = Histories(asked.users, asked.history_end, log, not engine.artifact.repeats)
    jobs_of, found = EngineJobs(engine, None), list[Visit]()
    catalogue = engine.artifact.catalogue
    for rows in batches_of([len(histories.items(i)) for i in range(len(histories))]):
        jobs = [jobs_of.of(histories.events(row), histories.excluded(row), _K, row) for row in rows]
        for row, one, result in zip(rows, jobs, engine.run(jobs), strict=True):
            decoded = result_of(result).decoded
            scores = None if one.request.decoding.sampled else decoded.scores
            names = [next(iter(catalogue.items[item].category), None) for item in decoded.items.tolist()]
            main = max(names, key=names.count, default=None)
            seen = np.unique(histories.items(row))
            found += [
                Visit(int(asked.users[row]), start, *events, decoded.items, scores, seen, main)
                for start, events in _hours(split.train, int(asked.users[row]))
            ]
    return found


def _hours(log: Sequences, user: int) -> list[tuple[int, tuple[list[str], list[str]]]]:
    """The hours of a user: the number of events before each, and its items and types."""
    rows = log.user(user)
    items, kinds, times = log.item[rows], log.type[rows], log.time_ms[rows]
    if not len(items):
        return []
    place = np.arange(len(items))
    hour = times // 3_600_000 if log.has_time else place // 10
    begins = np.flatnonzero(np.concatenate([[True], np.diff(hour) != 0]))
    parts = np.split(place, begins[1:])
    return [
        (int(part[0]), ([log.item_ids[items[i]] for i in part], [EVENT_TYPES[kinds[i]] for i in part]))
        for part in parts
    ]


def alerts_after(simulation: Simulation, shift: str) -> int | None:
    """Returns how many hours after a shift something drifts, looked for during twelve hours; None: nothing does."""
    simulation.hours((_SHIFT_AT_H - simulation.hour) % _DAY_H)
    began = simulation.hour
    simulation.hours(_DAY_H - _SHIFT_AT_H, shift)
    after = [hour - began for window, _, hour in simulation.alerts if hour > began]
    return min(after, default=None)


SHIFTS: Mapping[str, str] = {
    "categories": criteria.drift_after("category mix"),
    "new items": criteria.drift_after("new items"),
    "event types": criteria.drift_after("event mix"),
}


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder, with a baseline.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set it was made from.")],
    days: Annotated[int, typer.Option(min=1, help="Quiet days.")] = 30,
    visits: Annotated[float, typer.Option(min=1, help="Visits an hour, on average.")] = 300.0,
    seed: Annotated[int, typer.Option(help="Seed of the traffic.")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/loop.json.")] = False,
) -> None:
    """Look for drift in quiet days, which have none, and in days with a shift."""
    engine = open_engine(artifact)
    split = split_of(TrainConfig(), sequences(Dataset.load(data)))
    pool = visits_of(engine, split)
    quiet = Simulation(engine, pool, visits, seed)
    quiet.hours(days * _DAY_H)
    named = ", ".join(f"{statistic} ({window} {hour})" for window, statistic, hour in quiet.alerts)
    typer.echo(f"{days} quiet days: {len(quiet.alerts)} alerts in {quiet.judged:,} windows judged {named}")
    rows = [(criteria.DRIFT_QUIET, float(len(quiet.alerts)), "alerts")] if days >= criteria.QUIET_DAYS else []
    late = len(quiet.alerts) > 0
    for number, (shift, criterion) in enumerate(SHIFTS.items(), start=1):
        found = Simulation(engine, pool, visits, seed + number)
        hours = alerts_after(found, shift)
        told = sorted({statistic for _, statistic, _ in found.alerts})
        typer.echo(f"{shift}: {'no alert' if hours is None else f'alert after {hours} h'} ({', '.join(told)})")
        rows.append((criterion, float(_DAY_H if hours is None else hours), "h"))
        late |= hours is None or hours > 1
    if record:
        command = f"python -m loadtests.loop.drift --artifact DIR --data DIR --days {days} --visits {visits:g} --record"
        for name, value, unit in rows:
            results.record(results.LOOP, criteria.row(name, value, unit, command))
    engine.close()
    raise typer.Exit(int(late))


if __name__ == "__main__":
    run_command(main)
