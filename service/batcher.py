"""Turns single jobs into engine runs: one bounded queue, and the threads that run what is in it.

The service has two, one before the encoder and one before the decoder, so that neither waits for the other. A run
takes jobs of one group only (a history length, a beam width): no job pays for a longer or wider neighbour, and each
is answered when its own run is over.

The batch window opens when a thread becomes free and finds jobs waiting; a job that meets an idle thread starts at
once. What arrives during a run forms the next batch by itself, so the window only matters between two light batches.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service import logs
from service.costs import Forecast, RunCosts
from service.deadline import Clock, Deadline
from service.errors import DeadlineExceeded, ModelAttemptFailed, ModelError, Overloaded
from service.metrics import Metrics

log = logs.get(__name__)

J = TypeVar("J")
R = TypeVar("R")

# Part of the time to spare before the earliest deadline that may be spent on filling the batch: the rest covers a
# run that is slower than the average.
_WINDOW_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """`window_s` is the longest wait for a batch to fill; a run longer than `stall_s` counts as stuck."""

    batch_max: int = 32
    window_s: float = 0.001
    queue_max: int = 256
    stall_s: float = 30.0


@dataclass(slots=True, eq=False)
class _Entry(Generic[J, R]):
    job: J
    group: Hashable
    deadline: Deadline
    future: asyncio.Future[R]
    enqueued: float
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The jobs of a group that wait, and the earliest deadline among them."""

    jobs: int = 0
    earliest: float = math.inf

    def with_one(self, deadline: Deadline) -> _Waiting:
        return _Waiting(self.jobs + 1, min(self.earliest, deadline.at))


@dataclass(slots=True, eq=False)
class _Worker:
    """A thread, the jobs it has taken, and since when its present run lasts."""

    thread: threading.Thread = field(init=False)
    jobs: int = 0
    group: Hashable = None
    since: float | None = None


class Batcher(Generic[J, R]):
    """Guarantees: every accepted job's waiter gets a result or an exception; a job whose deadline has passed
    or whose waiter has gone never reaches the engine; no more than `queue_max` jobs wait; a bad job fails alone.

    `run` gets jobs of one `group` and returns a result or an exception for each. It is called by `threads` threads.
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], Sequence[R | Exception]],
        metrics: Metrics,
        limits: BatchLimits,
        *,
        group: Callable[[J], Hashable] = lambda _: None,
        name: str = "engine",
        threads: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine_run = run
        self._group = group
        self._batch_max, self._window_s = limits.batch_max, limits.window_s
        self._queue_max, self._stall_s = limits.queue_max, limits.stall_s
        self._queued = metrics.stage_duration.labels("queue").observe
        self._clock = clock
        self._queue: deque[_Entry[J, R]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._dead = False
        self._waiting: dict[Hashable, _Waiting] = {}
        self.costs = RunCosts(limits.batch_max, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers = [_Worker() for _ in range(threads)]
        for number, worker in enumerate(self._workers):
            worker.thread = threading.Thread(target=self._work, args=(worker,), name=f"{name}-{number}", daemon=True)

    # -- event loop side

    def start(self) -> None:
        """Starts the threads; called on the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        for worker in self._workers:
            worker.thread.start()

    @property
    def depth(self) -> int:
        """Jobs waiting or running: those ahead of a job that is submitted now."""
        return len(self._queue) + sum(worker.jobs for worker in self._workers)

    @property
    def healthy(self) -> bool:
        """Whether every thread lives and none is stuck in its present run."""
        return all(worker.thread.is_alive() and not self._stuck(worker) for worker in self._workers)

    def forecast(self, group: Hashable) -> Forecast:
        """When a job of this group would be done if it were submitted now: after the runs under way, and one run or
        more for each group that waits."""
        with self._changed:
            waiting = dict(self._waiting)
        running = [left for worker in self._workers if (left := self._left(worker)) is not None]
        began = self._clock() + sum(running) / len(self._workers)
        own = waiting.setdefault(group, _Waiting())
        waits = sum(
            self.costs.drain_s(key, one.jobs + (one is own), one.earliest - began) for key, one in waiting.items()
        )
        alone = self.costs.run_s(group, 1)
        ahead_s = sum(running) + waits
        idle = not running and len(waiting) == 1 and not own.jobs
        return Forecast(max(alone, ahead_s / len(self._workers)), alone, idle)

    def _left(self, worker: _Worker) -> float | None:
        """What is left of a thread's present run; None where it has none.

        A run that takes longer than runs do is taken to last as long again as it is over its time: one that hangs lets
        nobody in behind it.
        """
        since = worker.since
        if since is None:
            return None
        over = self._clock() - since - self.costs.run_s(worker.group, max(1, worker.jobs))
        return abs(over)

    def _stuck(self, worker: _Worker) -> bool:
        since = worker.since
        return since is not None and self._clock() - since >= self._stall_s

    async def submit(self, job: J, deadline: Deadline) -> R:
        """The engine's answer to one job.

        Raises:
            Overloaded: the queue is full, or the batcher is closing.
            DeadlineExceeded: the deadline passed first; the job is abandoned.
            ModelError: the engine failed, or its thread is dead.
        """
        entry = self._enqueue(job, deadline)
        timer = asyncio.get_running_loop().call_later(deadline.remaining(), _expire, entry.future)
        try:
            return await entry.future
        finally:
            timer.cancel()
            entry.abandoned = True

    async def close(self, timeout_s: float) -> None:
        """Refuses new jobs, waits up to `timeout_s` for the accepted ones, fails the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        until = self._clock() + timeout_s
        for worker in self._workers:
            if worker.thread.is_alive():
                await asyncio.to_thread(worker.thread.join, max(0.0, until - self._clock()))
        self._fail_waiting(Overloaded("shut down before the engine got to it"))
        if any(worker.thread.is_alive() for worker in self._workers):
            log.error("engine_still_running_at_shutdown")

    def _enqueue(self, job: J, deadline: Deadline) -> _Entry[J, R]:
        future = asyncio.get_running_loop().create_future()
        entry: _Entry[J, R] = _Entry(job, self._group(job), deadline, future, self._clock())
        with self._changed:
            if self._closing:
                raise Overloaded("the batcher is closing")
            if self._dead:
                raise ModelError("the engine thread is dead")
            if len(self._queue) >= self._queue_max:
                raise Overloaded("the batch queue is full")
            self._queue.append(entry)
            self._note(entry)
            self._changed.notify()
        return entry

    def _deliver(self, batch: Sequence[_Entry[J, R]], results: Sequence[R | Exception]) -> None:
        for entry, result in zip(batch, results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)

    # -- worker side

    def _work(self, worker: _Worker) -> None:
        """A worker thread. Whatever happens, no waiter is left behind."""
        batch: list[_Entry[J, R]] = []
        try:
            while batch := self._next_batch(worker):
                self._run(worker, batch)
        except BaseException as error:
            log.critical("engine_thread_died", **logs.where(error))
            with self._changed:
                self._dead = True
            self._post(batch, [ModelError("the engine thread died")] * len(batch))
            self._fail_waiting(ModelError("the engine thread died"))

    def _next_batch(self, worker: _Worker) -> list[_Entry[J, R]]:
        """The next jobs to run; empty only when closing and nothing waits. Expired jobs are answered here."""
        while True:
            with self._changed:
                self._wait_for_jobs()
                if not self._queue:
                    if self._closing:
                        return []
                    continue  # another thread took what there was
                batch, expired = self._take_group()
                worker.jobs, worker.group = len(batch), batch[0].group if batch else None
                worker.since = self._clock() if batch else None
            now = self._clock()
            for entry in (*batch, *expired):
                self._queued(now - entry.enqueued)
            self._post(expired, [DeadlineExceeded("waited too long for the engine")] * len(expired))
            if batch:
                return batch

    def _take_group(self) -> tuple[list[_Entry[J, R]], list[_Entry[J, R]]]:
        """The first job and those of its group, in order of arrival, as many as are done before the deadline of each;
        and those for whom it is too late. Holds the lock.

        A job that would be late even alone gives way to those behind it. Where there are none it is run: somebody has
        to find out whether runs still take so long.
        """
        now = self._clock()
        expired = [entry for entry in self._queue if entry.deadline.at <= now and not entry.abandoned]
        self._queue = deque(entry for entry in self._queue if entry.deadline.at > now and not entry.abandoned)
        batch: list[_Entry[J, R]] = []
        while self._queue and not batch:
            group = self._queue[0].group
            mates = [entry for entry in self._queue if entry.group == group]
            rows = self.costs.rows_within(group, (entry.deadline.at - now for entry in mates))
            if rows or len(self._queue) == 1:
                batch = mates[: max(1, rows)]
            else:
                expired.append(self._queue.popleft())
        taken = set(map(id, batch))
        self._queue = deque(entry for entry in self._queue if id(entry) not in taken)
        self._waiting = {}
        for entry in self._queue:
            self._note(entry)
        return batch, expired

    def _note(self, entry: _Entry[J, R]) -> None:
        """The entry waits; holds the lock."""
        self._waiting[entry.group] = self._waiting.get(entry.group, _Waiting()).with_one(entry.deadline)

    def _wait_for_jobs(self) -> None:
        """Returns when there is something to run, the window over; holds the lock."""
        was_idle = not self._queue
        while not self._queue and not self._closing:
            self._changed.wait()
        if was_idle or self._closing:
            return
        opened = self._clock()
        while self._queue and len(self._queue) < self._batch_max and not self._closing:
            spare = min(entry.deadline.at for entry in self._queue) - self._run_s() - opened
            left = opened + min(self._window_s, spare * _WINDOW_SHARE) - self._clock()
            if left <= 0:
                return
            self._changed.wait(left)

    def _run(self, worker: _Worker, batch: Sequence[_Entry[J, R]]) -> None:
        began = worker.since = self._clock()
        results: Sequence[R | Exception]
        try:
            results = list(self._engine_run([entry.job for entry in batch]))
            if len(results) != len(batch):
                raise ModelError(f"{len(results)} answers to {len(batch)} jobs")
        except Exception as error:
            log.error("engine_run_failed", jobs=len(batch), **logs.where(error))
            failure = error if isinstance(error, ModelAttemptFailed) else ModelError(type(error).__name__)
            results = [failure] * len(batch)
        worker.since, worker.jobs = None, 0
        self.costs.ran(batch[0].group, len(batch), self._clock() - began)
        self._post(batch, [_as_model_error(result) for result in results])

    def _run_s(self) -> float:
        """What the next run will take, if it takes all of the first job's group; holds the lock."""
        group = self._queue[0].group
        return self.costs.run_s(group, min(self._batch_max, self._waiting[group].jobs))

    def _post(self, batch: Sequence[_Entry[J, R]], results: Sequence[R | Exception]) -> None:
        if batch:
            self._call(self._deliver, batch, results)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None  # noqa: S101 - start() ran before anything was accepted
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            log.warning("event_loop_gone")

    def _fail_waiting(self, error: Exception) -> None:
        with self._changed:
            waiting = list(self._queue)
            self._queue.clear()
            self._waiting.clear()
        self._post(waiting, [error] * len(waiting))


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("no answer from the engine in time"))


def _as_model_error(result: R | Exception) -> R | Exception:
    if isinstance(result, Exception) and not isinstance(result, ModelAttemptFailed):
        log.error("job_failed", **logs.where(result))
        return ModelError(type(result).__name__)
    return result
