"""Simulates requests to worker processes that share the cores of one machine. Pure: costs in, latencies out.

A request passes a line of threads: the sender, its worker's main thread, Redis, the main thread again, the decoder's
thread in a batch with others, and back. Each thread does one thing at a time; the threads that have work share the
cores equally. A main thread works in turns, as an event loop does: it takes what has come since its last turn, and at
the end of the turn all its reads of Redis leave together, and all its lists wait for the decoder together. No measured
latency goes in, so latencies and the highest rate come out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_NOTHING_S = 1e-12
# Of what the main thread does for a list: until Redis is asked, until the decoder is, and until the answer leaves. The
# rest is done behind the answer.
_ASK, _PLAN, _ANSWER = 0.35, 0.15, 0.35
# Turns of the event loop of a list that is alone: the request comes, Redis answers, the decoder answers, the record.
_TURNS = 4.0

Done = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListCosts:
    """Processor time of the parts of a list, in microseconds.

    Attributes:
        sender: The process that sends the requests, for each; 0 where it is another machine.
        main: The worker's main thread, for each list.
        turns: The worker's main thread, for the turns of the event loop that a list takes alone.
        store: Redis, for each list.
        run: The decoder, for each run.
        row: The decoder, for each list of a run.
        shared: How much longer everything takes while all cores are busy, ≥ 1: cores that share caches or are threads
            of one core are slower together.
    """

    sender: float
    main: float
    turns: float
    store: float
    run: float
    row: float
    shared: float = 1.0

    def of_list(self, batch: float) -> float:
        """Returns what a list takes on the service's machines where runs have so many rows."""
        return self.main + self.store + self.row + (self.turns + self.run) / batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What runs the service: cores, worker processes, and the largest batch of a run."""

    cores: float
    workers: int
    batch_max: int = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulated run showed.

    Attributes:
        latencies_ms: Of every request after the warm-up, in order of arrival, [n].
        batch: Mean rows of a run of the decoder.
        busy: Mean cores in use.
    """

    latencies_ms: np.ndarray
    batch: float
    busy: float

    def at(self, percentile: float) -> float:
        """Returns a percentile of the latency in milliseconds; infinite if so many were not answered."""
        if not len(self.latencies_ms):
            return math.inf
        return float(np.percentile(self.latencies_ms, percentile, method="higher"))


class _Thread:
    """One thing at a time: pieces of work in the order in which they came."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, Done]] = deque()

    def add(self, seconds: float, then: Done) -> None:
        """Appends a piece of work, and what follows it."""
        self._pieces.append((max(seconds, _NOTHING_S), then))

    @property
    def left(self) -> float:
        """Seconds until the piece at hand is done, at full speed; infinite without one."""
        return self._pieces[0][0] if self._pieces else math.inf

    def work(self, seconds: float) -> None:
        """Works on the piece at hand."""
        left, then = self._pieces[0]
        if left - seconds > _NOTHING_S:
            self._pieces[0] = (left - seconds, then)
            return
        self._pieces.popleft()
        then()


class _EventLoop(_Thread):
    """A thread that takes all that waits as one turn; what follows from a turn happens at its end."""

    __slots__ = ("_turn_s", "_waiting", "_working")

    def __init__(self, turn_s: float) -> None:
        super().__init__()
        self._turn_s = turn_s
        self._waiting: list[tuple[float, Done]] = []
        self._working = False

    def add(self, seconds: float, then: Done) -> None:
        self._waiting.append((seconds, then))
        if not self._working:
            self._begin()

    def _begin(self) -> None:
        turn, self._waiting = self._waiting, []
        self._working = bool(turn)

        def ended() -> None:
            for _, then in turn:
                then()
            self._begin()

        if turn:
            super().add(self._turn_s + sum(seconds for seconds, _ in turn), ended)


class _Worker:
    """The two threads of a worker, and the lists that wait for its decoder."""

    def __init__(self, costs: ListCosts, batch_max: int) -> None:
        self.main, self.decoder = _EventLoop(costs.turns / _TURNS * 1e-6), _Thread()
        self._costs, self._batch_max = costs, batch_max
        self._waiting: list[Done] = []
        self._running = False
        self.runs = self.rows = 0

    def decode(self, then: Done) -> None:
        """Queues a list; the decoder is woken once for all that were queued at this moment."""
        self._waiting.append(then)
        if not self._running:
            self._running = True
            self.decoder.add(_NOTHING_S, self._run)

    def _run(self) -> None:
        batch, self._waiting = self._waiting[: self._batch_max], self._waiting[self._batch_max :]
        self.runs, self.rows = self.runs + 1, self.rows + len(batch)

        def done() -> None:
            for then in batch:
                then()
            self._running = bool(self._waiting)
            if self._running:
                self._run()

        self.decoder.add((self._costs.run + self._costs.row * len(batch)) * 1e-6, done)


def simulate(
    costs: ListCosts, machine: Machine, rate: float, *, seconds: float = 8.0, warmup_s: float = 1.0, seed: int = 0
) -> Outcome:
    """Returns what an open loop with Poisson arrivals would show.

    Args:
        costs: Of the parts.
        machine: Cores, workers, batches.
        rate: Requests a second.
        seconds: Length of the run behind the warm-up.
        warmup_s: Requests that are due before this do not count.
        seed: Of the arrivals.
    """
    rng = np.random.default_rng(seed)
    total = warmup_s + seconds
    dues = np.cumsum(rng.exponential(1.0 / rate, int(rate * total)))
    chosen = rng.integers(machine.workers, size=len(dues))
    run = _Run(costs, machine, dues.tolist(), chosen.tolist())
    run.go(until=total + 2.0)
    counted = np.array([late for due, late in zip(dues, run.latencies, strict=True) if due >= warmup_s])
    runs = sum(worker.runs for worker in run.workers)
    rows = sum(worker.rows for worker in run.workers)
    return Outcome(1000.0 * counted, rows / max(1, runs), run.busy_s / max(run.now, _NOTHING_S))


class _Run:
    """The state of one simulated run. A request that is not answered at the end has an infinite latency."""

    def __init__(self, costs: ListCosts, machine: Machine, dues: Sequence[float], chosen: Sequence[int]) -> None:
        self._costs, self._cores = costs, machine.cores
        self.workers = [_Worker(costs, machine.batch_max) for _ in range(machine.workers)]
        self._sender, self._store = _Thread(), _Thread()
        self._threads = [self._sender, self._store, *(t for w in self.workers for t in (w.main, w.decoder))]
        self._dues, self._chosen = dues, chosen
        self.latencies = [math.inf] * len(dues)
        self.now = self.busy_s = 0.0

    def go(self, until: float) -> None:
        """Runs until everything is answered, or until that second."""
        arrived = 0
        while self.now < until:
            active = [thread for thread in self._threads if thread.left < math.inf]
            due = self._dues[arrived] if arrived < len(self._dues) else math.inf
            if not active and due == math.inf:
                return
            speed = min(1.0, self._cores / len(active)) if active else 1.0
            if len(active) >= self._cores:
                speed /= self._costs.shared
            step = min(min((thread.left for thread in active), default=math.inf) / speed, due - self.now)
            self.now += step
            self.busy_s += step * min(len(active), self._cores)
            for thread in active:
                thread.work(step * speed)
            if self.now >= due - _NOTHING_S:
                self._arrive(arrived)
                arrived += 1

    def _arrive(self, number: int) -> None:
        costs, worker, due = self._costs, self.workers[self._chosen[number]], self._dues[number]
        main, behind = costs.main * 1e-6, 1.0 - _ASK - _PLAN - _ANSWER

        def received() -> None:
            worker.main.add(_ASK * main, asked)

        def asked() -> None:
            self._store.add(costs.store * 1e-6, lambda: worker.main.add(_PLAN * main, lambda: worker.decode(decoded)))

        def decoded() -> None:
            worker.main.add(_ANSWER * main, sent)

        def sent() -> None:
            self._sender.add(0.5 * costs.sender * 1e-6, answered)
            worker.main.add(behind * main, _nothing)

        def answered() -> None:
            self.latencies[number] = self.now - due

        self._sender.add(0.5 * costs.sender * 1e-6, received)


def _nothing() -> None:
    """The end of work that nobody waits for."""


def highest_rate(
    costs: ListCosts,
    machine: Machine,
    *,
    p99_ms: float = 50.0,
    precision: float = 0.01,
    seeds: int = 3,
    seconds: float = 6.0,
) -> tuple[float, Outcome]:
    """Returns the highest rate whose p99 is within the limit, and a run at that rate.

    Args:
        costs: Of the parts.
        machine: Cores, workers, batches.
        p99_ms: Limit of p99; the median of the seeds has to keep it.
        precision: Ratio of the bounds, less 1, at which the search ends.
        seeds: Runs of each rate.
        seconds: Length of a run.
    """

    def held(rate: float) -> tuple[bool, Outcome]:
        runs = sorted(
            (simulate(costs, machine, rate, seconds=seconds, seed=seed) for seed in range(seeds)),
            key=lambda run: run.at(99.0),
        )
        middle = runs[len(runs) // 2]
        return middle.at(99.0) <= p99_ms, middle

    # No rate above what the cores, or the busiest thread of each kind, can do.
    most = 1e6 / costs.of_list(machine.batch_max)
    high = min(machine.cores * most, machine.workers * 1e6 / costs.main, 1e6 / max(costs.store, costs.sender, 1e-6))
    low, found = high / 64.0, simulate(costs, machine, high / 64.0)
    while high / low > 1.0 + precision:
        middle = math.sqrt(low * high)
        holds, run = held(middle)
        low, high, found = (middle, high, run) if holds else (low, middle, found)
    return low, found
