"""Turns of several spaces on one graph, on a fake clock: who runs next, and what is foretold of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.batching.fair_turns import Backlog, Turn
from service.batching.job_queue import Entry, JobQueue, ThreadRun
from service.batching.run_costs import RunCosts
from service.batching.run_scheduler import Lane, RunScheduler
from service.common.deadline import Deadline
from tests.support.clock import FakeClock

BATCH_MAX = 4
# In all, less than the time after which measurements are forgotten.
SECONDS = {"a": (0.01, 0.005), "b": (0.02, 0.0), "c": (0.0, 0.03)}
LONGEST = max(fixed + by_row * BATCH_MAX for fixed, by_row in SECONDS.values())


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Futures need one, though nothing runs on it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


class Shop:
    """A space whose runs take exactly what is known of them: a fixed part and one for each row."""

    def __init__(self, scheduler: RunScheduler, clock: FakeClock, share: float) -> None:
        self.clock, self.scheduler = clock, scheduler
        self.costs = RunCosts(BATCH_MAX, clock)
        self.queue: JobQueue[str, None] = JobQueue(self.costs, clock)
        self.run = ThreadRun(self.costs, clock)
        self.lane: Lane = scheduler.account(share).join(self)
        self.turn: Turn | None = None
        self.used = 0.0
        for group in SECONDS:
            for rows in range(1, BATCH_MAX + 1):
                self.costs.ran(group, rows, takes(group, rows))

    def backlog(self) -> Backlog:
        return self.queue.backlog()

    def left_s(self) -> float:
        return self.run.left()

    def add(self, group: str) -> Entry[str, None]:
        never = Deadline(math.inf, self.clock)
        future: asyncio.Future[None] = asyncio.get_event_loop_policy().get_event_loop().create_future()
        entry: Entry[str, None] = Entry(group, group, never, future, self.clock())
        self.queue.add(entry)
        self.ask()
        return entry

    def ask(self) -> None:
        if self.turn is None and len(self.queue):
            self.turn = Turn(self.lane.account, self)
            self.scheduler.turns.ask(self.turn)

    def forecast(self, group: str) -> float:
        own = self.queue.forecast(group, [self.run])
        return own.seconds + self.lane.wait_s(own.seconds, own.alone)


class Street:
    """Spaces on one graph, and the time that their runs take."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.clock = FakeClock()
        self.scheduler = RunScheduler(self.clock, patience_s=math.inf)
        self.shops = [Shop(self.scheduler, self.clock, share) for share in shares]
        self.ends = math.inf
        self.order: list[int] = []

    def begin(self) -> None:
        """Begins the next run if there is one and none is under way."""
        turn = self.scheduler.turns.next(self.clock())
        if turn is None:
            return
        shop = next(shop for shop in self.shops if shop.turn is turn)
        batch, _ = shop.queue.take()
        shop.run.begin(batch[0].group, len(batch))
        self.ends = self.clock() + takes(batch[0].job, len(batch))
        self.order.append(self.shops.index(shop))

    def step(self, until: float = math.inf) -> None:
        """Goes on to the end of the run that is under way, but not beyond `until`."""
        self.begin()
        if self.ends > until:
            self.clock.now = max(self.clock.now, until)
            return
        self.clock.now = self.ends
        shop = next(shop for shop in self.shops if shop.run.jobs)
        assert shop.turn is not None
        shop.used += shop.run.lasts()
        shop.run.end()
        self.scheduler.turns.end(shop.turn, self.clock())
        shop.turn, self.ends = None, math.inf
        shop.ask()
        self.begin()

    def done(self, wanted: Entry[str, None]) -> float:
        """Returns the seconds until the run of a job has ended."""
        since = self.clock()
        while wanted.begun is None:
            self.step()
        return self.ends - since


def takes(group: str, rows: int) -> float:
    fixed, by_row = SECONDS[group]
    return fixed + by_row * rows


_shares = st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=2, max_size=4)
# Who adds a job, of which group, and how long after the one before.
_arrivals = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.sampled_from([0.0, 0.0, 0.003, 0.02, 0.09])), max_size=30
)


@given(_shares, _arrivals, st.integers(0, 3), st.sampled_from("abc"))
@example(  # accounts that are equal but for rounding
    [0.5, 1.0], [(0, "a", 0.0), (0, "c", 0.0), (1, "c", 0.0), (1, "c", 0.0), (0, "a", 0.09), (1, "c", 0.0)], 1, "a"
)
@settings(max_examples=100)
def test_a_job_behind_those_of_other_spaces_is_done_when_the_forecast_said_or_before(
    shares: list[float], arrivals: list[tuple[int, str, float]], who: int, group: str
) -> None:
    street = Street(shares)
    for shop, kind, after in arrivals:
        until = street.clock() + after
        while street.clock() < until:
            street.step(until)
        street.shops[shop % len(shares)].add(kind)
        street.begin()
    mine = street.shops[who % len(shares)]
    foretold, own = mine.forecast(group), mine.queue.forecast(group, [mine.run]).seconds
    others = sum(shop.backlog().seconds + shop.left_s() for shop in street.shops if shop is not mine)
    entry = mine.add(group)
    street.begin()
    assert street.done(entry) <= foretold + 1e-9
    assert foretold <= own + others + 1e-9


@given(_shares)
@settings(max_examples=20)
def test_spaces_that_always_have_work_get_time_by_their_shares(shares: list[float]) -> None:
    street = Street(shares)
    until = street.clock() + 5.0
    while street.clock() < until:
        for number, shop in enumerate(street.shops):
            while len(shop.queue) < 2 * BATCH_MAX:
                shop.add("abc"[number % 3])
        street.step(until)
    fair = [shop.used / share for shop, share in zip(street.shops, shares, strict=True)]
    assert max(fair) - min(fair) <= 2 * LONGEST / min(shares)


def test_a_space_that_needs_little_waits_for_one_run_of_a_flood_and_no_more() -> None:
    street = Street([1.0, 1.0])
    flood, quiet = street.shops
    for number in range(40):
        for _ in range(8):
            flood.add("c")
        street.step(street.clock() + 0.07 + number / 1000)
        entry = quiet.add("a")
        street.begin()
        under_way = street.ends - street.clock() if flood.run.jobs else 0.0
        assert street.done(entry) <= under_way + takes("a", 1) + 1e-9
    assert set(street.order) == {0, 1}


def test_time_that_nobody_else_wanted_is_not_charged_later() -> None:
    street = Street([1.0, 1.0])
    early, late = street.shops
    for _ in range(100):
        early.add("b")
        street.step()
    for _ in range(4):
        late.add("c")
        late.add("a")
        early.add("c")
    street.order.clear()
    while any(len(shop.queue) for shop in street.shops):
        street.step()
    assert street.order[:3] in ([1, 0, 1], [0, 1, 1])


def test_a_run_that_hangs_keeps_others_from_running_for_a_while_only() -> None:
    clock = FakeClock()
    scheduler = RunScheduler(clock, patience_s=0.5)
    one, two = Shop(scheduler, clock, 1.0), Shop(scheduler, clock, 1.0)
    one.add("a")
    assert scheduler.turns.next(clock()) is one.turn
    one.run.begin("a", 1)
    two.add("a")
    assert scheduler.turns.next(clock()) is None
    assert two.lane.wait_s(0.01, 0.01) == one.left_s() > 0.0
    clock.advance(0.5)
    assert two.lane.wait_s(0.01, 0.01) == 0.0
    assert scheduler.turns.next(clock()) is two.turn


def test_a_space_alone_waits_for_nothing() -> None:
    street = Street([1.0])
    shop = street.shops[0]
    for _ in range(10):
        shop.add("a")
        assert shop.lane.wait_s(0.05, 0.01) == 0.0
        street.step(street.clock() + 0.007)
