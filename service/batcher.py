"""Turns single jobs into engine runs: one bounded queue, one worker thread.

The engine is synchronous and owns its thread. The batch window opens when the engine becomes free and finds
jobs waiting; a job that meets an idle engine starts at once. What arrives while the engine works forms the
next batch by itself, so the window only matters between two light batches.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service import logs
from service.deadline import Clock, Deadline
from service.engine import Job, Ranking
from service.errors import DeadlineExceeded, ModelAttemptFailed, ModelError, Overloaded
from service.metrics import Metrics

log = logs.get(__name__)

# Part of the time to spare before the earliest deadline that may be spent on filling the batch: the rest covers a
# run that is slower than the average.
_WINDOW_SHARE = 0.5
# Weight of the newest run in the moving average of the run time.
_SMOOTHING = 0.2


class Runs(Protocol):
    """What the batcher needs of the engine."""

    def run(self, jobs: Sequence[Job]) -> Sequence[Ranking | Exception]: ...


@dataclass(slots=True, eq=False)
class _Entry:
    job: Job
    deadline: Deadline
    future: asyncio.Future[Ranking]
    enqueued: float
    abandoned: bool = False


class Batcher:
    """Guarantees: every accepted job's waiter gets a result or an exception; a job whose deadline has passed
    or whose waiter has gone never reaches the engine; no more than `queue_max` jobs wait.
    """

    def __init__(
        self,
        engine: Runs,
        metrics: Metrics,
        *,
        batch_max: int = 32,
        window_s: float = 0.001,
        queue_max: int = 256,
        stall_s: float = 30.0,
        on_run: Callable[[Sequence[Job], float], None] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._batch_max, self._window_s, self._queue_max, self._stall_s = (
            batch_max,
            window_s,
            queue_max,
            stall_s,
        )
        self._on_run = on_run
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._dead = False
        self._running = 0
        self._running_since: float | None = None
        self._run_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    # -- event loop side

    def start(self) -> None:
        """Starts the worker thread; called on the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def depth(self) -> int:
        """Jobs waiting or running: those ahead of a job that is submitted now."""
        return len(self._queue) + self._running

    @property
    def healthy(self) -> bool:
        """Whether the worker thread lives and its present run is not stuck."""
        since = self._running_since
        return self._thread.is_alive() and (since is None or self._clock() - since < self._stall_s)

    async def submit(self, job: Job, deadline: Deadline) -> Ranking:
        """The engine's answer to one job.

        Raises:
            Overloaded: the queue is full, or the batcher is closing.
            DeadlineExceeded: the deadline passed first; the job is abandoned.
            ModelError: the engine failed, or its thread is dead.
        """
        entry = self._enqueue(job, deadline)
        try:
            await asyncio.wait({entry.future}, timeout=deadline.remaining())
            if not entry.future.done():
                raise DeadlineExceeded("no answer from the engine in time")
            return entry.future.result()
        finally:
            entry.abandoned = True
            if not entry.future.cancel() and not entry.future.cancelled():
                entry.future.exception()  # marks it as seen

    async def close(self, timeout_s: float) -> None:
        """Refuses new jobs, waits up to `timeout_s` for the accepted ones, fails the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, timeout_s)
        self._fail_waiting(Overloaded("shut down before the engine got to it"))
        if self._thread.is_alive():
            log.error("engine_still_running_at_shutdown")

    def _enqueue(self, job: Job, deadline: Deadline) -> _Entry:
        entry = _Entry(job, deadline, asyncio.get_running_loop().create_future(), self._clock())
        with self._changed:
            if self._closing:
                raise Overloaded("the batcher is closing")
            if self._dead:
                raise ModelError("the engine thread is dead")
            if len(self._queue) >= self._queue_max:
                raise Overloaded("the batch queue is full")
            self._queue.append(entry)
            self._changed.notify()
        self._metrics.queue_depth.set(len(self._queue))
        return entry

    def _finish(self, batch: Sequence[_Entry], results: Sequence[Ranking | Exception], took: float) -> None:
        """The end of an engine run, on the event loop."""
        self._deliver(batch, results)
        if self._on_run is not None:
            self._on_run([entry.job for entry in batch], took)

    def _deliver(self, batch: Sequence[_Entry], results: Sequence[Ranking | Exception]) -> None:
        for entry, result in zip(batch, results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)

    # -- worker side

    def _work(self) -> None:
        """The worker thread. Whatever happens, no waiter is left behind."""
        batch: list[_Entry] = []
        try:
            while batch := self._next_batch():
                self._run(batch)
        except BaseException as error:
            log.critical("engine_thread_died", **logs.where(error))
            with self._changed:
                self._dead = True
            self._post(batch, [ModelError("the engine thread died")] * len(batch))
            self._fail_waiting(ModelError("the engine thread died"))

    def _next_batch(self) -> list[_Entry]:
        """The next jobs to run; empty only when closing and nothing waits. Expired jobs are answered here."""
        while True:
            with self._changed:
                self._wait_for_jobs()
                if not self._queue:
                    return []
                taken = [self._queue.popleft() for _ in range(min(self._batch_max, len(self._queue)))]
                self._metrics.queue_depth.set(len(self._queue))
            now = self._clock()
            for entry in taken:
                self._metrics.stage_duration.labels("queue").observe(now - entry.enqueued)
            batch: list[_Entry] = []
            expired: list[_Entry] = []
            for entry in taken:
                if not entry.abandoned:
                    (expired if entry.deadline.passed else batch).append(entry)
            self._post(expired, [DeadlineExceeded("waited too long for the engine")] * len(expired))
            if batch:
                return batch

    def _wait_for_jobs(self) -> None:
        """Returns when there is something to run, the window over; holds the lock."""
        was_idle = not self._queue
        while not self._queue and not self._closing:
            self._changed.wait()
        if was_idle or self._closing:
            return
        opened = self._clock()
        while len(self._queue) < self._batch_max and not self._closing:
            spare = min(entry.deadline.at for entry in self._queue) - self._run_s - opened
            left = opened + min(self._window_s, spare * _WINDOW_SHARE) - self._clock()
            if left <= 0:
                return
            self._changed.wait(left)

    def _run(self, batch: Sequence[_Entry]) -> None:
        began = self._running_since = self._clock()
        self._running = len(batch)
        results: Sequence[Ranking | Exception]
        try:
            results = list(self._engine.run([entry.job for entry in batch]))
            if len(results) != len(batch):
                raise ModelError(f"{len(results)} answers to {len(batch)} jobs")
        except Exception as error:
            log.error("engine_run_failed", jobs=len(batch), **logs.where(error))
            failure = error if isinstance(error, ModelAttemptFailed) else ModelError(type(error).__name__)
            results = [failure] * len(batch)
        self._running_since, self._running = None, 0
        took = self._clock() - began
        self._run_s = took if self._run_s == 0.0 else self._run_s + _SMOOTHING * (took - self._run_s)
        self._call(self._finish, batch, [_as_model_error(result) for result in results], took)

    def _post(self, batch: Sequence[_Entry], results: Sequence[Ranking | Exception]) -> None:
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
        self._metrics.queue_depth.set(0)
        self._post(waiting, [error] * len(waiting))


def _as_model_error(result: Ranking | Exception) -> Ranking | Exception:
    if isinstance(result, Exception) and not isinstance(result, ModelAttemptFailed):
        log.error("job_failed", **logs.where(result))
        return ModelError(type(result).__name__)
    return result
