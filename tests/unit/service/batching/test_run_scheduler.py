"""Batchers of two spaces on one graph, with real threads: nobody starves, nobody is left waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from service.batching.batcher import Batcher, BatchLimits
from service.batching.fair_turns import Account
from service.batching.run_scheduler import GraphTurns, RunScheduler
from service.common.deadline import Deadline
from service.common.errors import ModelAttemptFailed, Overloaded
from service.metrics.service_metrics import Metrics
from tests.support.aio import asynchronous, eventually

Jobs = Batcher[str, str]


class Graph:
    """What several batchers run on: notes whose runs began, and how many at once; each run waits for `go`."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.go = threading.Semaphore(0)
        self.accounts: dict[str, Account] = {}

    def run(self, jobs: Sequence[str]) -> list[str]:
        with self.lock:
            self.order.append(jobs[0])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.go.acquire(timeout=20.0)
        with self.lock:
            self.at_once -= 1
        return list(jobs)


@asynccontextmanager
async def spaces(graph: Graph, scheduler: RunScheduler, *names: str) -> AsyncIterator[list[Jobs]]:
    async with AsyncExitStack() as stack:
        batchers = []
        for name in names:
            limits = BatchLimits(batch_max=2, window_s=0.0)
            turns = scheduler.account()
            graph.accounts[name] = turns.account
            batcher = Jobs(graph.run, Metrics(), limits, name=name, turns=turns)
            batcher.start()
            stack.push_async_callback(batcher.close, 20.0)
            batchers.append(batcher)
        stack.callback(graph.go.release, 1000)
        yield batchers


async def until(holds: Callable[[], bool]) -> None:
    async def condition() -> bool:
        return holds()

    await eventually(condition, 20.0)


def submitted(batcher: Jobs, name: str, number: int) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(batcher.submit(name, Deadline.after(20.0))) for _ in range(number)]


@asynchronous
async def test_a_job_waits_for_the_run_under_way_and_not_for_the_flood_behind_it() -> None:
    graph = Graph()
    async with spaces(graph, RunScheduler(patience_s=60.0), "flood", "quiet") as (flood, quiet):
        many = submitted(flood, "flood", 20)
        await until(lambda: len(graph.order) == 1)
        one = submitted(quiet, "quiet", 1)
        await until(lambda: graph.accounts["quiet"].asking == 1)
        assert quiet.forecast(None).idle is False
        graph.go.release(20)
        assert await asyncio.gather(*one, *many) == ["quiet", *["flood"] * 20]
    assert graph.order.index("quiet") == 1
    assert graph.most_at_once == 1


@asynchronous
async def test_jobs_that_come_while_their_batcher_waits_for_its_turn_join_its_run() -> None:
    graph = Graph()
    async with spaces(graph, RunScheduler(patience_s=60.0), "one", "two") as (one, two):
        first = submitted(one, "one", 1)
        await until(lambda: len(graph.order) == 1)
        later = submitted(two, "two", 1)
        await until(lambda: graph.accounts["two"].asking == 1)
        later += submitted(two, "two", 1)
        await until(lambda: two.depth == 2)
        graph.go.release(2)
        await asyncio.gather(*first, *later)
    assert graph.order == ["one", "two"]


@asynchronous
async def test_a_job_whose_time_ends_before_its_turn_is_overload_and_never_runs() -> None:
    graph = Graph()
    async with spaces(graph, RunScheduler(patience_s=60.0), "one", "two") as (one, two):
        first = submitted(one, "one", 1)
        await until(lambda: len(graph.order) == 1)
        with pytest.raises(Overloaded):
            await two.submit("two", Deadline.after(0.05))
        graph.go.release()
        await asyncio.gather(*first)
    assert graph.order == ["one"]


@asynchronous
async def test_a_graph_that_hangs_in_one_space_does_not_stop_the_other() -> None:
    hung, free = Graph(), Graph()
    scheduler = RunScheduler(patience_s=0.05)
    async with spaces(hung, scheduler, "hung") as (one,), spaces(free, scheduler, "free") as (two,):
        stuck = submitted(one, "hung", 1)
        await until(lambda: len(hung.order) == 1)
        free.go.release()
        assert await two.submit("free", Deadline.after(20.0)) == "free"
        assert not stuck[0].done()
        hung.go.release()
        assert await stuck[0] == "hung"


@asynchronous
async def test_a_thread_that_dies_gives_its_turn_back() -> None:
    graph = Graph()

    def die(_: Sequence[str]) -> list[str]:
        raise SystemExit

    scheduler = RunScheduler(patience_s=60.0)
    dying = Jobs(die, Metrics(), BatchLimits(), turns=scheduler.account())
    dying.start()
    with pytest.raises(ModelAttemptFailed):
        await dying.submit("dying", Deadline.after(20.0))
    async with spaces(graph, scheduler, "other") as (other,):
        graph.go.release()
        assert await other.submit("other", Deadline.after(20.0)) == "other"
    await dying.close(1.0)


@asynchronous
async def test_a_closed_batcher_is_in_no_forecast_and_in_nobodys_way() -> None:
    graph = Graph()
    scheduler = RunScheduler()
    async with spaces(graph, scheduler, "kept") as (kept,):
        async with spaces(graph, scheduler, "closed") as (closed,):
            graph.go.release()
            await closed.submit("closed", Deadline.after(20.0))
        graph.go.release()
        assert await kept.submit("kept", Deadline.after(20.0)) == "kept"
        assert kept.forecast(None).idle


def test_each_graph_has_turns_of_its_own() -> None:
    turns = GraphTurns().of_space(2.0)
    assert turns.encode is not None and turns.decode is not None
    assert turns.encode.scheduler is not turns.decode.scheduler
    assert turns.encode.account.share == turns.decode.account.share == 2.0
