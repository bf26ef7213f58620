"""Turns single jobs into engine runs: one bounded queue, and the threads that run its jobs.

The service has two, one in front of the encoder and one in front of the decoder, so that neither waits for the other. A
run takes jobs of one group only (a history length, a beam width). So no job pays for a longer or wider neighbour, and
each gets its result when its own run ends.

The batch window opens when a thread becomes free and finds jobs waiting; a job that meets an idle thread starts at
once. Jobs that arrive during a run form the next batch by themselves, so the window only matters between light batches.
Where several spaces share a graph, a thread waits for its turn first (`service.batching.run_scheduler`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from service.batching.fair_turns import Backlog
from service.batching.job_queue import Entry, JobQueue, ThreadRun
from service.batching.run_costs import Forecast, RunCosts
from service.batching.run_scheduler import Lane, SpaceTurns
from service.common import logs
from service.common.alarms import Alarms
from service.common.deadline import Clock, Deadline
from service.common.errors import DeadlineExceeded, ModelAttemptFailed, ModelError, Overloaded
from service.metrics.service_metrics import Metrics
from service.tracing import tracing

log = logs.get(__name__)

J = TypeVar("J")
R = TypeVar("R")

# Part of the spare time before the earliest deadline that may be spent on filling the batch: the rest covers a run that
# is slower than the average.
_WINDOW_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Limits of a batcher.

    Attributes:
        batch_max: Jobs of one run.
        together_max: Jobs of one run if they came together.
        window_s: The longest wait for a batch to fill.
        queue_max: Jobs that may wait.
        stall_s: A run that takes longer counts as stuck.
    """

    batch_max: int = 32
    together_max: int = 100
    window_s: float = 0.001
    queue_max: int = 256
    stall_s: float = 30.0


class Batcher(Generic[J, R]):
    """A queue of jobs and the threads that run them in batches.

    It guarantees that:

    - every accepted job's waiter gets a result or an exception;
    - a job whose deadline has passed, or whose waiter is gone, never reaches the engine;
    - no more than `queue_max` jobs wait;
    - a bad job fails alone.

    Attributes:
        costs: Measured run times.
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
        turns: SpaceTurns | None = None,
        refusal: Callable[[], ModelAttemptFailed | None] = lambda: None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepares the queue; `start` starts the threads.

        Args:
            run: Runs jobs of one group and returns a result or an exception for each. Called by several threads.
            metrics: Where times in the queue are reported.
            limits: Sizes and times.
            group: Jobs of one group can share a run.
            name: What runs are: prefix of the threads' names, and name of the runs in traces.
            threads: Number of threads.
            turns: Where runs take turns with those of other spaces; None if there are none.
            refusal: Returns why no job can be run at present; None if jobs can.
            clock: Monotonic seconds.
        """
        self._engine_run, self._refusal = run, refusal
        self._group = group
        self._batch_max, self._window_s = limits.batch_max, limits.window_s
        self._queue_max, self._stall_s = limits.queue_max, limits.stall_s
        self._queued = metrics.stage_duration.labels("queue").observe
        self._clock, self._name = clock, name
        self.costs = RunCosts(limits.batch_max, clock, together_max=limits.together_max)
        self._queue: JobQueue[J, R] = JobQueue(self.costs, clock)
        # Held for a few steps at a time. To take it by itself is quicker than through the condition.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._alarms = Alarms()
        self._closing = self._waking = False
        self._dead = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns = turns
        self._lane: Lane | None = None
        self._runs = [ThreadRun(self.costs, clock) for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._work, args=(run,), name=f"{name}-{number}", daemon=True)
            for number, run in enumerate(self._runs)
        ]

    # -- event loop side

    def start(self) -> None:
        """Starts the threads. Call it on the event loop that submits jobs."""
        self._loop = asyncio.get_running_loop()
        self._lane = None if self._turns is None else self._turns.join(self)
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Jobs waiting or running, all ahead of a job that is submitted now."""
        return len(self._queue) + sum(run.jobs for run in self._runs)

    @property
    def healthy(self) -> bool:
        """Whether every thread is alive and none is stuck in its present run."""
        stuck = any(run.lasts() >= self._stall_s for run in self._runs)
        return not stuck and all(thread.is_alive() for thread in self._threads)

    def forecast(self, group: Hashable, *, jobs: int = 1) -> Forecast:
        """Forecasts when so many jobs of this group would be done if they were submitted together now.

        The runs of other spaces whose turn comes first are included.
        """
        with self._lock:
            forecast = self._queue.forecast(group, self._runs, jobs)
        if self._lane is None or not (wait := self._lane.wait_s(forecast.seconds, forecast.alone)):
            return forecast
        return replace(forecast, seconds=forecast.seconds + wait, idle=False)

    def backlog(self) -> Backlog:
        """Forecasts the runs that the waiting jobs will take, for the forecasts of other spaces."""
        if not len(self._queue):
            return Backlog()
        with self._lock:
            return self._queue.backlog()

    def left_s(self) -> float:
        """Forecasts the seconds left of the present run, for the forecasts of other spaces."""
        return max(run.left() for run in self._runs)

    async def submit(self, job: J, deadline: Deadline) -> R:
        """Runs one job.

        Args:
            job: The job.
            deadline: When the result is needed; the job is abandoned when it passes.

        Returns:
            The engine's result.

        Raises:
            Overloaded: The queue is full, the batcher is closing, or the deadline passed because of the jobs ahead.
            DeadlineExceeded: The deadline passed because of the engine: the job's run began at once, or a run took much
                longer than usual.
            ModelError: The engine failed, or its thread is dead.
            ModelAttemptFailed: Jobs are refused at present.
        """
        entry = self.entry(job, deadline)
        if self._add([entry]):
            raise Overloaded("the batch queue is full")
        return await self.result(entry)

    def entry(self, job: J, deadline: Deadline) -> Entry[J, R]:
        """Returns a job as it stands in the queue, where `queue` puts it with others."""
        future = asyncio.get_running_loop().create_future()
        return Entry(job, self._group(job), deadline, future, self._clock(), trace=tracing.sampled())

    def queue(self, entries: Sequence[Entry[J, R]]) -> None:
        """Queues jobs that came together, at once, so that no run begins with some of them. Refusals are results."""
        try:
            left = self._add(entries)
        except ModelAttemptFailed as refusal:
            self._deliver(entries, [refusal] * len(entries))
        else:
            self._deliver(left, [Overloaded("the batch queue is full") for _ in left])

    async def result(self, entry: Entry[J, R]) -> R:
        """Waits for a job; `submit` says what it returns and raises."""
        when = asyncio.get_running_loop().time() + entry.deadline.remaining()
        alarm = self._alarms.at(when, self._expire, entry)
        try:
            return await entry.future
        finally:
            self._alarms.forget(alarm)
            entry.abandoned = True

    async def close(self, timeout_s: float) -> None:
        """Refuses new jobs, waits up to `timeout_s` seconds for the accepted ones, and fails the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        until = self._clock() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join, max(0.0, until - self._clock()))
        self._fail_waiting(Overloaded("the service shut down before the job was run"))
        if self._lane is not None:
            self._lane.leave()
        if any(thread.is_alive() for thread in self._threads):
            log.error("engine_still_running_at_shutdown")

    def _add(self, entries: Sequence[Entry[J, R]]) -> Sequence[Entry[J, R]]:
        """Queues as many jobs as may wait; returns the others."""
        with self._lock:
            if self._closing:
                raise Overloaded("the batcher is closing")
            if self._dead:
                raise ModelError("the engine thread is dead")
            if (refusal := self._refusal()) is not None:
                raise refusal
            room = max(0, self._queue_max - len(self._queue))
            for entry in entries[:room]:
                self._queue.add(entry)
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake)
        return entries[room:]

    def _wake(self) -> None:
        """Wakes threads for the jobs of a turn of the event loop.

        A thread that is woken in the midst of a turn would wait for the interpreter until the turn is over.
        """
        self._waking = False
        with self._lock:
            self._changed.notify(len(self._queue))

    def _expire(self, entry: Entry[J, R]) -> None:
        # If the event loop itself was late, the result may be there but not delivered yet.
        if not entry.future.done() and not entry.ended:
            entry.future.set_exception(self._too_late(entry))

    def _too_late(self, entry: Entry[J, R]) -> ModelAttemptFailed:
        """The exception of a job that is late: it says whether the engine or the load is to blame."""
        if entry.began_at_once or any(run.overdue for run in self._runs):
            return DeadlineExceeded("no result from the engine in time")
        return Overloaded("the jobs ahead took too long")

    def _deliver(self, batch: Sequence[Entry[J, R]], results: Sequence[R | Exception]) -> None:
        for entry, result in zip(batch, results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)

    # -- worker side

    def _work(self, run: ThreadRun) -> None:
        """Runs batches until the batcher closes. Whatever happens, every waiter gets an answer."""
        batch: list[Entry[J, R]] = []
        try:
            while batch := self._next_batch(run):
                self._run(run, batch)
        except BaseException as error:
            log.critical("engine_thread_died", **logs.where(error))
            with self._changed:
                self._dead = True
                run.end()
            self._end_turn(run)
            self._post(batch, [ModelError("the engine thread died")] * len(batch))
            self._fail_waiting(ModelError("the engine thread died"))

    def _next_batch(self, run: ThreadRun) -> list[Entry[J, R]]:
        """The next jobs to run; empty only if the batcher is closing and no job waits. Fails expired jobs."""
        while True:
            with self._changed:
                self._wait_for_jobs()
                if not len(self._queue) and self._closing:
                    return []
                if self._lane is None:
                    batch, expired = self._take(run)
            if self._lane is not None:
                # The jobs are chosen when it is their turn: those that wait by then.
                run.turn = self._lane.take()
                with self._lock:
                    batch, expired = self._take(run)
                if not batch:
                    self._end_turn(run)
            now = self._clock()
            for entry in (*batch, *expired):
                self._queued(now - entry.enqueued)
            self._post(expired, [self._too_late(entry) for entry in expired])
            for entry in expired:
                if entry.trace is not None:
                    left_s = entry.deadline.at - now
                    entry.trace.stage("queue", entry.enqueued, now, left_s, error="DeadlineExceeded")
            if batch:
                return batch

    def _take(self, run: ThreadRun) -> tuple[list[Entry[J, R]], list[Entry[J, R]]]:
        """Takes the jobs of the next run, and those for which it is too late. The caller holds the lock."""
        batch, expired = self._queue.take()  # empty if another thread was faster, or nobody waits for the jobs any more
        if batch:
            run.begin(batch[0].group, len(batch))
        return batch, expired

    def _end_turn(self, run: ThreadRun) -> None:
        if self._lane is not None and run.turn is not None:
            turn, run.turn = run.turn, None
            self._lane.end(turn)

    def _wait_for_jobs(self) -> None:
        """Returns when jobs wait and their window is over. The caller holds the lock."""
        was_idle = not len(self._queue)
        while not len(self._queue) and not self._closing:
            self._changed.wait()
        if was_idle or self._closing:
            return
        opened = self._clock()
        while 0 < len(self._queue) < self._batch_max and not self._closing:
            waited = self._clock() - opened
            spare = waited + self._queue.spare_s(self._batch_max)
            left = min(self._window_s, spare * _WINDOW_SHARE) - waited
            if left <= 0:
                return
            self._changed.wait(left)

    def _run(self, run: ThreadRun, batch: Sequence[Entry[J, R]]) -> None:
        results: Sequence[R | Exception]
        try:
            results = list(self._engine_run([entry.job for entry in batch]))
            if len(results) != len(batch):
                raise ModelError(f"{len(results)} results for {len(batch)} jobs")
        except Exception as error:
            log.error("engine_run_failed", jobs=len(batch), **logs.where(error))
            failure = error if isinstance(error, ModelAttemptFailed) else ModelError(type(error).__name__)
            results = [failure] * len(batch)
        with self._lock:
            run.end()
        self._end_turn(run)
        for entry in batch:
            entry.ended = True
        traced = [(entry, result) for entry, result in zip(batch, results, strict=True) if entry.trace is not None]
        ended = self._clock() if traced else 0.0
        self._post(batch, [_as_model_error(result) for result in results])
        for entry, result in traced:
            self._note(entry, result, ended, len(batch))

    def _note(self, entry: Entry[J, R], result: R | Exception, ended: float, rows: int) -> None:
        """Notes the wait and the run of a job in its trace; its waiter already has the result."""
        begun, until = entry.begun, entry.deadline.at
        if entry.trace is None or begun is None:
            return
        entry.trace.stage("queue", entry.enqueued, begun, until - begun)
        error = {"error": type(result).__name__} if isinstance(result, Exception) else {}
        entry.trace.stage(self._name, begun, ended, until - ended, batch_rows=rows, **error)

    def _post(self, batch: Sequence[Entry[J, R]], results: Sequence[R | Exception]) -> None:
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
            waiting = self._queue.clear()
        self._post(waiting, [error] * len(waiting))


def _as_model_error(result: R | Exception) -> R | Exception:
    if isinstance(result, Exception) and not isinstance(result, ModelAttemptFailed):
        log.error("job_failed", **logs.where(result))
        return ModelError(type(result).__name__)
    return result
