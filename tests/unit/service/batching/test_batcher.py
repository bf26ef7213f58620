"""The batcher against the fake engine: nobody is left waiting, and nothing late is run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.batcher import Batcher, BatchLimits
from service.batching.run_costs import Forecast
from service.common.deadline import Deadline
from service.common.errors import DeadlineExceeded, ModelAttemptFailed, ModelError, Overloaded
from service.engine.decoding import Decoding
from service.engine.jobs import DecodedList, DecodeJob, ListRequest
from service.metrics.service_metrics import Metrics
from tests.support.aio import asynchronous, eventually
from tests.support.clock import FakeClock
from tests.support.fakes import FakeEngine

_NOTHING = np.zeros(0, np.int64)
Decoder = Batcher[DecodeJob, DecodedList]


def job(k: int = 1, width: int | None = None, *, bad: bool = False) -> DecodeJob:
    request = ListRequest(context=_NOTHING, gap_ms=-1, decoding=Decoding("greedy"), k=k, width=width)
    return DecodeJob(h=np.full(4, np.nan if bad else 0.0, np.float32), request=request)


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds)


@asynccontextmanager
async def batching(engine: FakeEngine, threads: int = 1, **limits: Any) -> AsyncIterator[Decoder]:
    batcher = Batcher(
        engine.decode,
        Metrics(),
        BatchLimits(**limits),
        group=lambda job: job.request.width,
        name="decode",
        threads=threads,
    )
    batcher.start()
    try:
        yield batcher
    finally:
        engine.go.set()
        await batcher.close(10.0)


@asynccontextmanager
async def busy(engine: FakeEngine, batcher: Decoder) -> AsyncIterator[asyncio.Task[Any]]:
    """The engine is held inside a run of one job."""
    engine.go.clear()
    held = asyncio.ensure_future(batcher.submit(job(), soon()))
    await asyncio.to_thread(engine.entered.wait, 10.0)
    yield held


@asynchronous
async def test_a_job_that_meets_an_idle_engine_starts_alone() -> None:
    engine = FakeEngine()
    async with batching(engine, window_s=60.0) as batcher:
        async with asyncio.timeout(5.0):  # half of its 20 s, if the window were opened
            ranking = await batcher.submit(job(k=3), soon())
    assert len(ranking.items) == 3
    assert engine.batches == [1]


@asynchronous
async def test_jobs_that_wait_for_a_busy_engine_form_one_batch() -> None:
    engine = FakeEngine()
    async with batching(engine, batch_max=8, window_s=0.0) as batcher:
        async with busy(engine, batcher) as held:
            rest = [asyncio.ensure_future(batcher.submit(job(), soon())) for _ in range(10)]
            await asyncio.sleep(0)
            assert batcher.depth == 11
            engine.go.set()
        await asyncio.gather(held, *rest)
    assert engine.batches == [1, 8, 2]


@asynchronous
async def test_the_window_never_outlives_the_earliest_deadline() -> None:
    engine = FakeEngine()
    async with batching(engine, batch_max=8, window_s=60.0) as batcher:
        async with busy(engine, batcher) as held:
            waiting = asyncio.ensure_future(batcher.submit(job(), soon(1.0)))
            await asyncio.sleep(0)
            engine.go.set()
        await held
        assert len((await waiting).items) == 1


@asynchronous
async def test_a_batch_takes_no_more_jobs_than_are_in_time_together() -> None:
    """A row costs a second, and each job has four and a half: three jobs to a run, with headroom."""
    engine = FakeEngine()
    async with batching(engine, batch_max=8, window_s=0.0) as batcher:
        for rows in range(1, 9):
            batcher.costs.ran(None, rows, float(rows))
        async with busy(engine, batcher) as held:
            rest = [asyncio.ensure_future(batcher.submit(job(), soon(4.5))) for _ in range(4)]
            await asyncio.sleep(0)
            engine.go.set()
        await asyncio.gather(held, *rest)
    assert engine.batches == [1, 3, 1]


@asynchronous
async def test_a_job_that_would_be_late_even_alone_gives_way_to_those_behind_it() -> None:
    engine = FakeEngine()
    async with batching(engine, window_s=0.0) as batcher:
        for _ in range(15):
            batcher.costs.ran(None, 1, 5.0)
        async with busy(engine, batcher) as held:
            late = asyncio.ensure_future(batcher.submit(job(k=7), soon(3.0)))
            after = asyncio.ensure_future(batcher.submit(job(k=2), soon(60.0)))
            await asyncio.sleep(0)
            engine.go.set()
        with pytest.raises(Overloaded):  # runs take what they take: it is the load that was in its way
            await late
        await asyncio.gather(held, after)
        assert len((await batcher.submit(job(k=3), soon(3.0))).items) == 3  # nobody is behind it: it is tried
    assert [j.request.k for j in engine.jobs] == [1, 2, 3]


@asynchronous
async def test_a_forecast_counts_the_run_under_way_and_every_group_that_waits() -> None:
    engine, clock = FakeEngine(), FakeClock()
    batcher = Batcher(
        engine.decode,
        Metrics(),
        BatchLimits(batch_max=2, window_s=0.0),
        group=lambda job: job.request.width,
        name="decode",
        clock=clock,
    )
    batcher.start()
    try:
        assert batcher.forecast(8) == Forecast(0.0, 0.0, idle=True)
        for group, seconds in ((None, 1.0), (8, 2.0), (16, 4.0)):
            batcher.costs.ran(group, 1, seconds)
            batcher.costs.ran(group, 2, seconds)
        assert batcher.forecast(8) == Forecast(2.0, 2.0, idle=True, measured=clock())
        waiting = Deadline.after(100.0, clock)
        engine.go.clear()
        tasks = [asyncio.ensure_future(batcher.submit(job(), waiting))]
        await asyncio.to_thread(engine.entered.wait, 10.0)
        tasks += [asyncio.ensure_future(batcher.submit(job(width=width), waiting)) for width in (8, 8, 8, 16)]
        await asyncio.sleep(0)
        assert batcher.forecast(8) == Forecast(1.0 + 2 * 2.0 + 4.0, 2.0, idle=False)
        assert batcher.forecast(16) == Forecast(1.0 + 2 * 2.0 + 4.0, 4.0, idle=False)
        clock.advance(0.75)
        assert batcher.forecast(16).seconds == 0.25 + 4.0 + 4.0
        clock.advance(10.25)  # it should have ended ten seconds ago: nobody knows when it will
        assert batcher.forecast(16).seconds == 10.0 + 4.0 + 4.0
        engine.go.set()
        await asyncio.gather(*tasks)
    finally:
        engine.go.set()
        await batcher.close(10.0)


@asynchronous
async def test_an_expired_job_never_reaches_the_engine() -> None:
    engine = FakeEngine()
    async with batching(engine) as batcher:
        async with busy(engine, batcher) as held:
            with pytest.raises(DeadlineExceeded):
                await batcher.submit(job(k=7), soon(0.01))
            engine.go.set()
        await held
        await batcher.submit(job(k=2), soon())
    assert [j.request.k for j in engine.jobs] == [1, 2]


@asynchronous
async def test_a_job_whose_caller_went_away_never_reaches_the_engine() -> None:
    engine = FakeEngine()
    async with batching(engine) as batcher:
        async with busy(engine, batcher) as held:
            gone = asyncio.ensure_future(batcher.submit(job(k=7), soon()))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            engine.go.set()
        await held
        await batcher.submit(job(k=2), soon())
    assert [j.request.k for j in engine.jobs] == [1, 2]


@asynchronous
async def test_a_full_queue_refuses_at_once() -> None:
    engine = FakeEngine()
    async with batching(engine, queue_max=2) as batcher:
        async with busy(engine, batcher) as held:
            rest = [asyncio.ensure_future(batcher.submit(job(), soon())) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await batcher.submit(job(), soon())
            engine.go.set()
        await asyncio.gather(held, *rest)


@asynchronous
async def test_a_failing_batch_resolves_every_waiter() -> None:
    engine = FakeEngine()
    engine.error = RuntimeError("the session broke")
    async with batching(engine) as batcher:
        async with busy(engine, batcher) as held:
            rest = [asyncio.ensure_future(batcher.submit(job(), soon())) for _ in range(5)]
            await asyncio.sleep(0)
            engine.go.set()
        results = await asyncio.gather(held, *rest, return_exceptions=True)
        assert [type(result) for result in results] == [ModelError] * 6
        engine.error = None
        assert len((await batcher.submit(job(), soon())).items) == 1
        assert batcher.healthy


@asynchronous
async def test_the_death_of_the_worker_is_noticed_and_resolves_every_waiter() -> None:
    engine = FakeEngine()
    engine.error = KeyboardInterrupt()
    async with batching(engine, batch_max=1) as batcher:
        async with busy(engine, batcher) as held:
            rest = [asyncio.ensure_future(batcher.submit(job(), soon())) for _ in range(3)]
            await asyncio.sleep(0)
            engine.go.set()
        results = await asyncio.gather(held, *rest, return_exceptions=True)
        assert all(isinstance(result, ModelError) for result in results)

        async def unhealthy() -> bool:
            return not batcher.healthy

        await eventually(unhealthy, within_s=10.0)
        with pytest.raises(ModelError):
            await batcher.submit(job(), soon())


@asynchronous
async def test_a_stuck_run_makes_the_batcher_unhealthy() -> None:
    engine = FakeEngine()
    async with batching(engine, stall_s=0.05) as batcher:
        assert batcher.healthy
        async with busy(engine, batcher) as held:

            async def unhealthy() -> bool:
                return not batcher.healthy

            await eventually(unhealthy, within_s=10.0)
            engine.go.set()
        await held
        assert batcher.healthy


@asynchronous
async def test_closing_runs_what_was_accepted_and_refuses_what_comes() -> None:
    engine = FakeEngine()
    async with batching(engine, batch_max=2) as batcher:
        async with busy(engine, batcher) as held:
            rest = [asyncio.ensure_future(batcher.submit(job(), soon())) for _ in range(4)]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(batcher.close(10.0))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await batcher.submit(job(), soon())
            engine.go.set()
        await closing
        assert all(len(ranking.items) == 1 for ranking in await asyncio.gather(held, *rest))


@asynchronous
async def test_closing_is_bounded_and_fails_what_still_waits() -> None:
    engine = FakeEngine()
    async with batching(engine, batch_max=1) as batcher:
        async with busy(engine, batcher) as held:
            waiting = asyncio.ensure_future(batcher.submit(job(), soon()))
            await asyncio.sleep(0)
            await batcher.close(0.05)
            with pytest.raises(Overloaded):
                await waiting
            engine.go.set()
        await held


@asynchronous
async def test_a_run_takes_jobs_of_one_group_and_the_others_keep_their_order() -> None:
    engine = FakeEngine()
    async with batching(engine, window_s=0.0) as batcher:
        async with busy(engine, batcher) as held:
            widths = [8, 64, 8, 64, 64, 8]
            rest = [asyncio.ensure_future(batcher.submit(job(width=width), soon())) for width in widths]
            await asyncio.sleep(0)
            engine.go.set()
        await asyncio.gather(held, *rest)
    assert engine.batches == [1, 3, 3]
    assert [job.request.width for job in engine.jobs[1:]] == [8, 8, 8, 64, 64, 64]


@asynchronous
async def test_several_threads_share_the_queue_and_each_job_is_run_once() -> None:
    engine = FakeEngine()
    async with batching(engine, threads=3, batch_max=2, window_s=0.001) as batcher:
        lists = await asyncio.gather(*(batcher.submit(job(k=1 + n % 5), soon()) for n in range(200)))
        assert [len(listed.items) for listed in lists] == [1 + n % 5 for n in range(200)]
        assert batcher.healthy and batcher.depth == 0
    assert len(engine.jobs) == 200


@given(
    outcomes=st.lists(st.sampled_from(["ok", "bad", "cancelled", "expired"]), min_size=1, max_size=20),
    batch_max=st.integers(1, 8),
    run_fails=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_every_waiter_gets_a_result_or_an_error(outcomes: list[str], batch_max: int, run_fails: bool) -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        async with batching(engine, batch_max=batch_max, window_s=0.0) as batcher:
            async with busy(engine, batcher) as held:
                engine.error = RuntimeError("broken") if run_fails else None
                tasks = [
                    asyncio.ensure_future(batcher.submit(job(bad=o == "bad"), soon(0.0 if o == "expired" else 20.0)))
                    for o in outcomes
                ]
                await asyncio.sleep(0)
                for outcome, task in zip(outcomes, tasks, strict=True):
                    if outcome == "cancelled":
                        task.cancel()
                await asyncio.sleep(0)
                engine.go.set()
            done, pending = await asyncio.wait([held, *tasks], timeout=20.0)
            assert not pending
            for task in done:
                assert task.cancelled() or isinstance(task.exception(), ModelAttemptFailed | None)
            for outcome, task in zip(outcomes, tasks, strict=True):
                if outcome in ("ok", "bad"):
                    assert isinstance(task.exception(), ModelError) == (run_fails or outcome == "bad")
        ran = len(engine.jobs) - 1
        assert ran == sum(outcome in ("ok", "bad") for outcome in outcomes)

    asyncio.run(scenario())
