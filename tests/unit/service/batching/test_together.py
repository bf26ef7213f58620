"""Requests that came together: their jobs share a run, and none of them waits for one that has no job."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.job_queue import Entry, JobQueue
from service.batching.run_costs import RunCosts
from service.batching.together import Together
from service.common.deadline import Deadline
from service.common.errors import Overloaded
from tests.support.aio import asynchronous
from tests.support.clock import FakeClock
from tests.support.fakes import FakeEngine
from tests.unit.service.batching.test_batcher import Decoder, batching, busy, job, soon


async def _one(together: Together, batcher: Decoder, width: int | None = None) -> Any:
    try:
        return await together.submit(batcher, job(width=width), soon())
    finally:
        together.ended()


async def _without_a_job(together: Together) -> None:
    together.ended()


@asynchronous
async def test_jobs_that_came_together_share_a_run_larger_than_usual() -> None:
    engine = FakeEngine()
    async with batching(engine, batch_max=8, window_s=0.0) as batcher:
        together = Together(40, soon())
        lists = await asyncio.gather(*(_one(together, batcher, width=8 if n % 4 else 16) for n in range(40)))
    assert all(len(one.items) == 1 for one in lists)
    assert sorted(engine.batches) == [10, 30]


@asynchronous
async def test_jobs_that_met_by_chance_do_not() -> None:
    engine = FakeEngine()
    async with batching(engine, batch_max=8, window_s=0.0, together_max=20) as batcher:
        async with busy(engine, batcher) as held:
            together = Together(30, soon())
            rest = [asyncio.ensure_future(_one(together, batcher)) for _ in range(30)]
            rest += [asyncio.ensure_future(batcher.submit(job(), soon())) for _ in range(9)]
            await asyncio.sleep(0)
            engine.go.set()
        await asyncio.gather(held, *rest)
    assert engine.batches == [1, 20, 10, 8, 1]


@asynchronous
async def test_a_request_that_ends_without_a_job_holds_nobody_up() -> None:
    engine = FakeEngine()
    async with batching(engine, window_s=0.0) as batcher:
        together = Together(3, soon(3600.0))  # a tenth of it would be longer than the test
        async with asyncio.timeout(20.0):
            await asyncio.gather(_one(together, batcher), _one(together, batcher), _without_a_job(together))
    assert engine.batches == [2]


@asynchronous
async def test_the_others_wait_for_a_slow_request_only_for_a_part_of_their_time() -> None:
    engine = FakeEngine()
    async with batching(engine, window_s=0.0) as batcher:
        together = Together(3, soon(0.5))
        async with asyncio.timeout(20.0):
            await asyncio.gather(_one(together, batcher), _one(together, batcher))  # the third never ends
            await _one(together, batcher)
    assert engine.batches == [2, 1]


@asynchronous
async def test_jobs_for_which_the_queue_has_no_room_are_refused_and_the_others_run() -> None:
    engine = FakeEngine()
    async with batching(engine, queue_max=5, window_s=0.0) as batcher:
        together = Together(8, soon())
        found = await asyncio.gather(*(_one(together, batcher) for _ in range(8)), return_exceptions=True)
        again = Together(1, soon())
        await batcher.close(5.0)
        with pytest.raises(Overloaded):
            await _one(again, batcher)
    assert [isinstance(one, Overloaded) for one in found] == [False] * 5 + [True] * 3


@asynchronous
async def test_a_request_can_try_again() -> None:
    engine = FakeEngine()
    async with batching(engine, window_s=0.0) as batcher:
        together = Together(2, soon(3600.0))

        async def twice() -> None:
            await together.submit(batcher, job(), soon())
            await _one(together, batcher)

        async with asyncio.timeout(20.0):
            await asyncio.gather(twice(), _one(together, batcher))
    assert engine.batches == [2, 1]


@asynchronous
async def test_forecasts_grow_with_the_jobs_that_came_together() -> None:
    engine = FakeEngine()
    async with batching(engine, batch_max=4, window_s=0.0) as batcher:
        for rows in (1, 2, 4, 8, 10):
            batcher.costs.ran("g", rows, float(rows))
        together = Together(10, soon())
        foretold = [together.forecast(batcher, "g").seconds for _ in range(10)]
    assert foretold == [1, 2, 4, 4, 8, 8, 8, 8, 10, 10]


@settings(max_examples=60, deadline=None)
@given(
    parties=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 12), st.booleans()), max_size=6),
    batch_max=st.integers(1, 6),
)
def test_runs_are_taken_in_order_and_are_as_large_as_they_may_be(
    parties: list[tuple[str, int, bool]], batch_max: int
) -> None:
    clock = FakeClock()
    queue: JobQueue[int, None] = JobQueue(RunCosts(batch_max, clock, together_max=12), clock)
    loop = asyncio.new_event_loop()
    jobs = 0
    for group, size, together in parties:
        party = object() if together else None
        for _ in range(size):
            entry: Entry[int, None] = Entry(
                jobs, group, Deadline.after(60.0, clock), loop.create_future(), clock(), party=party
            )
            queue.add(entry)
            jobs += 1
    taken: list[Entry[int, None]] = []
    while len(queue):
        batch, expired = queue.take()
        assert batch and not expired
        own = sum(entry.party is batch[0].party for entry in batch) if batch[0].party is not None else 0
        assert len({entry.group for entry in batch}) == 1
        assert len(batch) <= max(batch_max, own)
        taken += batch
    loop.close()
    assert sorted(entry.job for entry in taken) == list(range(jobs))
