"""The queue before an engine, on a fake clock: what it predicts is what it does, and whose fault lateness is."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.job_queue import Entry, JobQueue, ThreadRun
from service.batching.run_costs import RunCosts
from service.common.deadline import Deadline
from tests.support.clock import FakeClock

BATCH_MAX = 4
SECONDS = {"a": (1.0, 0.5), "b": (2.0, 0.0), "c": (0.0, 3.0)}


class Bench:
    """A queue whose runs take exactly what is known of them: a fixed part and one for each row."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.costs = RunCosts(BATCH_MAX, self.clock)
        self.queue: JobQueue[str, None] = JobQueue(self.costs, self.clock)
        self.run = ThreadRun(self.costs, self.clock)
        self.loop = asyncio.new_event_loop()
        for group in SECONDS:
            for rows in range(1, BATCH_MAX + 1):
                self.costs.ran(group, rows, self.takes(group, rows))

    def takes(self, group: str, rows: int) -> float:
        fixed, by_row = SECONDS[group]
        return fixed + by_row * rows

    def add(self, group: str, left_s: float = math.inf) -> Entry[str, None]:
        now = self.clock()
        deadline = Deadline(now + left_s, self.clock)
        entry: Entry[str, None] = Entry(group, group, deadline, self.loop.create_future(), now)
        self.queue.add(entry)
        return entry

    def done(self, wanted: Entry[str, None]) -> float:
        """Runs everything up to this job; returns when its run ended."""
        while wanted.begun is None:
            batch, _ = self.queue.take()
            self.run.begin(batch[0].group, len(batch))
            self.clock.advance(self.takes(batch[0].job, len(batch)))
            self.run.end()
        return self.clock()


@given(st.lists(st.sampled_from("abc"), max_size=20), st.sampled_from("abc"))
def test_a_job_is_done_when_the_forecast_said_or_before(waiting: list[str], group: str) -> None:
    """Exactly then where all of its group goes before what else waits; groups that come after it are counted too."""
    bench = Bench()
    for one in waiting:
        bench.add(one)
    forecast = bench.queue.forecast(group, [bench.run])
    began = bench.clock()
    done = bench.done(bench.add(group)) - began
    bench.loop.close()
    assert done <= forecast.seconds + 1e-9
    if set(waiting) <= {group}:
        assert done == pytest.approx(forecast.seconds)
    assert forecast.idle == (not waiting)


def test_runs_are_no_larger_than_their_earliest_deadline_bears_and_the_forecast_knows_it() -> None:
    bench = Bench()
    first = bench.add("c", left_s=8.0)  # three seconds a row and a quarter of headroom: two rows
    bench.add("c", left_s=30.0)
    forecast = bench.queue.forecast("c", [bench.run])
    third = bench.add("c", left_s=30.0)
    began = bench.clock()
    assert bench.done(third) - began == forecast.seconds == 6.0 + 3.0
    assert first.begun == began
    bench.loop.close()


def test_who_begins_at_once_had_all_of_its_time() -> None:
    bench = Bench()
    early, late = bench.add("b", left_s=10.0), bench.add("b", left_s=10.0)
    assert not early.began_at_once
    bench.queue.take()
    assert early.began_at_once and late.began_at_once
    waits = bench.add("b", left_s=10.0)
    bench.clock.advance(1.1)
    bench.queue.take()
    assert waits.begun is not None and not waits.began_at_once
    bench.loop.close()


def test_a_run_is_overdue_at_twice_its_usual_time_until_one_is_not() -> None:
    bench = Bench()
    run = bench.run
    assert not run.overdue and run.left() == 0.0
    run.begin("b", 1)
    bench.clock.advance(0.5)
    assert run.left() == 1.5
    bench.clock.advance(3.5)
    assert not run.overdue and run.left() == 2.0
    bench.clock.advance(0.1)
    assert run.overdue
    run.end()
    assert run.overdue and run.left() == 0.0  # those who waited behind it are its victims
    run.begin("b", 1)
    bench.clock.advance(2.0)
    run.end()
    assert not run.overdue
    bench.loop.close()


def test_jobs_nobody_waits_for_are_not_run() -> None:
    bench = Bench()
    gone, stays = bench.add("a"), bench.add("a")
    gone.abandoned = True
    assert bench.queue.take() == ([stays], [])
    bench.loop.close()
