"""Measures one system under load: starts, checks, warms up, measures and stops it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
import orjson

from loadtests.compare.rows import LIMIT_MS, OPEN_LOOP, SEQUENTIAL, Measured
from loadtests.compare.users import Users, same_list
from loadtests.load import wrk
from loadtests.load.capacity import Step, capacity
from loadtests.load.open_loop_driver import Arrival, Report, closed_now, poisson
from loadtests.peers import closed_loop
from loadtests.peers.closed_loop import ClosedLoop
from loadtests.peers.environments import PeerError
from loadtests.peers.processes import Running, free_port, running
from loadtests.peers.systems import K, Place, Settings, System, listed_items, request_body, stored_events

CHECKED = 20
# About as many as are in flight at 400 requests/s of 20 ms: more would only queue.
CONCURRENCY = 8
EVENTS_AT_ONCE = 500
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Effort:
    """Lengths of the measurement in seconds; `precision` is how far apart the bounds of the search may end."""

    step_s: float = 1.5
    confirm_s: float = 4.0
    warmup_s: float = 0.5
    wrk_s: float = 2.0
    sequential_s: float = 8.0
    precision: float = 0.07
    search_s: float = 28.0  # the search ends after this, with the highest rate that held


QUICK = Effort(1.5, 2.0, 0.5, 1.0, 2.0, 0.2, 20.0)


class WrongAnswerError(PeerError):
    """Raised if a system gives wrong answers: its speed is then worthless."""


class OutOfTimeError(Exception):
    """Raised if the search for a rate has used up its time."""


class Subjects:
    """The requests of one system, encoded once."""

    def __init__(self, system: System, settings: Settings, users: Users) -> None:
        self.system, self.users = system, users
        self.bodies = [orjson.dumps(request_body(system, subject, settings)) for subject in users.subjects]

    def arrivals(self, rate: float, seconds: float, seed: int) -> list[Arrival]:
        """Returns Poisson arrivals of users drawn at random."""
        rng = np.random.default_rng(seed)
        dues = poisson(rng, rate, seconds)
        chosen = rng.integers(len(self.bodies), size=len(dues))
        return [
            Arrival(due, self.system.path, self.bodies[row])
            for due, row in zip(dues.tolist(), chosen.tolist(), strict=True)
        ]

    def requests(self, count: int) -> list[Arrival]:
        """Returns requests of the users in turn, for a closed loop."""
        return [Arrival(0.0, self.system.path, body) for body in itertools.islice(itertools.cycle(self.bodies), count)]


@contextmanager
def started(system: System, settings: Settings, users: Users, place: Place) -> Iterator[tuple[Running, Subjects]]:
    """Starts the system on a free port and checks its answers.

    Raises:
        PeerError: If it does not come up.
        WrongAnswerError: If a list differs from the expected one.
    """
    port, asked = free_port(), Subjects(system, settings, users)

    def ready(url: str) -> bool:
        try:
            return httpx.post(url + system.path, content=asked.bodies[0], headers=_JSON, timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False

    log = place.scratch / f"{system.name}-{port}.log".replace(" ", "-")
    command = system.command(system.python(), place, port, settings)
    with running(command, port, system.environ(place), log, ready) as server:
        if system.is_ours:
            _store(server.url, users)
        check(server.url, asked)
        yield server, asked


def check(url: str, asked: Subjects) -> int:
    """Compares the lists of the first users with the expected ones; returns how many.

    Raises:
        WrongAnswerError: If one differs.
    """
    system, users = asked.system, asked.users
    with httpx.Client(timeout=TIMEOUT_S) as client:
        for row, body in enumerate(asked.bodies[:CHECKED]):
            answer = client.post(url + system.path, content=body, headers=_JSON)
            try:
                answer.raise_for_status()
                given = answer.json()
                items = listed_items(given)
                scores = [float(item["score"]) for item in (given[0] if isinstance(given, list) else given)["items"]]
            except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
                raise WrongAnswerError(f"{system.key}: {error!r}: {answer.text[:500]}") from error
            if system.check == "same items":
                right = same_list(users.expected[row], items, scores)
            else:
                right = len(set(items)) == K
            if not right or (system.is_ours and given["rung"] != "full"):
                expected = listed_items(users.expected[row]) if system.check == "same items" else "k different items"
                raise WrongAnswerError(f"{system.key}: user {row} got {items} instead of {expected}")
    return min(CHECKED, len(asked.bodies))


def measure(system: System, settings: Settings, users: Users, place: Place, effort: Effort) -> Measured:
    """Measures the rate of a system at p99 ≤ 50 ms, or one request at a time if no rate is within the limit.

    Raises:
        PeerError: If the system fails.
    """
    with started(system, settings, users, place) as (server, asked):
        _warm_up(server.url, asked, effort)
        concurrency = 1 if system.slow else CONCURRENCY
        cross = _wrk(server.url, asked, concurrency, effort)
        if not system.slow:
            found = _at_limit(server, asked, cross, effort)
            if found is not None:
                return found
        return _one_by_one(server, asked, cross, effort)


def try_settings(system: System, settings: Settings, users: Users, place: Place, effort: Effort) -> dict[str, Any]:
    """Measures rate and latencies of these settings in a closed loop."""
    with started(system, settings, users, place) as (server, asked):
        _warm_up(server.url, asked, effort)
        concurrency = 1 if system.slow else CONCURRENCY
        found = _wrk(server.url, asked, concurrency, effort)
        if found is None:
            report = closed_now(server.url, asked.requests(500), concurrency=concurrency, timeout_s=TIMEOUT_S)
            at = report.routes[system.path]
            found = ClosedLoop(report.answered_rate, at.at(50) or 0.0, at.at(99) or 0.0, concurrency, None)
    return {
        "settings": dict(settings),
        "rps": round(found.rps, 2),
        "p50_ms": round(found.p50_ms, 3),
        "p99_ms": round(found.p99_ms, 3),
        "concurrency": found.concurrency,
    }


def _at_limit(server: Running, asked: Subjects, cross: ClosedLoop | None, effort: Effort) -> Measured | None:
    """Searches the rate; None if none is within the limit. Out of time, it returns the highest rate that held."""
    system = asked.system
    usage = Usage(server)
    give_up = time.monotonic() + effort.search_s
    held: dict[float, Step] = {}

    def make(rate: float, seconds: float, seed: int) -> Sequence[Arrival]:
        if time.monotonic() > give_up:
            raise OutOfTimeError
        arrivals = asked.arrivals(rate, seconds, seed)
        usage.start()
        return arrivals

    def on_step(step: Step) -> None:
        usage.stop(step)
        if step.fault is None:
            held[step.rate] = step
        else:
            held.pop(step.rate, None)

    try:
        found = capacity(
            server.url,
            make,
            p99_ms=LIMIT_MS,
            full_share=0.99 if system.is_ours else None,
            low=max(2.0, 0.6 * cross.rps) if cross is not None else 100.0,
            seconds=effort.step_s,
            warmup_s=effort.warmup_s,
            precision=effort.precision,
            confirm_s=effort.confirm_s,
            on_step=on_step,
            timeout_s=TIMEOUT_S,
        )
    except OutOfTimeError:
        if not held:
            return None
        rate = max(held)
        report = held[rate].report
        measured = _measured(asked, OPEN_LOOP, rate, report, usage.cores(report), cross)
        return replace(measured, confirmed=False)
    if found.report is None:
        return None
    measured = _measured(asked, OPEN_LOOP, found.rate, found.report, usage.cores(found.report), cross)
    return replace(measured, generator_bound=found.generator_bound)


def _one_by_one(server: Running, asked: Subjects, cross: ClosedLoop | None, effort: Effort) -> Measured:
    trial = closed_now(server.url, asked.requests(5), timeout_s=TIMEOUT_S)
    count = max(10, int(effort.sequential_s * trial.answered_rate))
    usage = Usage(server)
    usage.start()
    report = closed_now(server.url, asked.requests(count), timeout_s=TIMEOUT_S)
    cores = usage.so_far()
    if report.errors:
        raise PeerError(f"{asked.system.key}: {report.errors}")
    return _measured(asked, SEQUENTIAL, report.answered_rate, report, cores, cross)


def _measured(
    asked: Subjects, method: str, rps: float, report: Report, cores: float, cross: ClosedLoop | None
) -> Measured:
    at = report.routes[asked.system.path]
    return Measured(
        asked.system.key, method, rps, at.at(50) or 0.0, at.at(99) or 0.0, cores, report.cpu_share,
        min(CHECKED, len(asked.bodies)), wrk=cross,
    )  # fmt: skip


class Usage:
    """Cores that a server used during each run of the driver."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._cpu = self._time = 0.0
        self._by_report: dict[int, float] = {}

    def start(self) -> None:
        """Begins to measure."""
        self._cpu, self._time = self._server.cpu_seconds(), time.perf_counter()

    def so_far(self) -> float:
        """Returns the cores used since `start`."""
        return (self._server.cpu_seconds() - self._cpu) / max(1e-9, time.perf_counter() - self._time)

    def stop(self, step: Step) -> None:
        """Notes the cores used in a step of the search."""
        self._by_report[id(step.report)] = self.so_far()

    def cores(self, report: Report) -> float:
        """Returns the cores used in the run of a report."""
        return self._by_report[id(report)]


def _warm_up(url: str, asked: Subjects, effort: Effort) -> None:
    count = 20 if asked.system.slow else 400
    closed_now(url, asked.requests(count), concurrency=1 if asked.system.slow else CONCURRENCY, timeout_s=TIMEOUT_S)
    if not asked.system.slow and effort.warmup_s >= 1.0:
        closed_now(url, asked.requests(count), concurrency=2, timeout_s=TIMEOUT_S)


def _wrk(url: str, asked: Subjects, concurrency: int, effort: Effort) -> ClosedLoop | None:
    if not wrk.available():
        return None
    return closed_loop.measure(url, asked.system.path, asked.bodies, concurrency, effort.wrk_s)


def _store(url: str, users: Users) -> None:
    """Loads the histories into our service and asks for every list once, so that the states are stored."""
    events = [event for subject in users.subjects for event in stored_events(subject)]
    with httpx.Client(timeout=TIMEOUT_S) as client:
        for at in range(0, len(events), EVENTS_AT_ONCE):
            answer = client.post(url + "/events", json={"events": events[at : at + EVENTS_AT_ONCE]})
            if answer.status_code != 200:
                raise PeerError(f"/events answered {answer.status_code}: {answer.text[:500]}")
        for subject in users.subjects:
            client.post(url + "/recommend", json={"user_id": subject.user_id, "k": K, "budget_ms": 2000})


_JSON: Mapping[str, str] = {"Content-Type": "application/json"}
