"""The way to Redis: slow, reset, silently gone. What is refused is sent again, and nothing is lost or there twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from loadtests.harness.tcp_proxy import Proxy, proxy
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import eventually
from tests.support.processes import PATIENT, Serve, T, event, eventually_rung, history, items_of, post, recommend, serve
from tests.support.valkey import TcpValkey

# Between the two, reads are out of time and writes are not.
READ_MS, WRITE_MS = 150, 1500
IDLE = 12


@dataclass(frozen=True)
class Behind:
    service: Serve
    proxy: Proxy
    items: list[str]

    def fill_pool(self, user: str) -> None:
        """Many events at once, so that many connections lie idle afterwards."""
        with ThreadPoolExecutor(IDLE) as threads:
            for one in [threads.submit(self.sent_at_last, user, n) for n in range(IDLE)]:
                one.result()

    def sent(self, user: str, number: int) -> int:
        """The status that an event of its own id is answered with."""
        item = self.items[number % len(self.items)]
        body = {"events": [event(user, item, T + number, event_id=f"{user}-{number}")]}
        return self.service.client.post("/events", json=body).status_code

    def sent_at_last(self, user: str, number: int) -> int:
        """The statuses until the event is accepted: how many refusals there were. Nothing but 200 and 503 is met."""
        until, refusals = time.monotonic() + 20.0, 0
        while (status := self.sent(user, number)) != 200:
            assert status == 503
            assert time.monotonic() < until
            refusals += 1
        return refusals

    def stored(self, user: str) -> list[str]:
        return sorted(str(one["event_id"]) for one in history(self.service, user))


@pytest.fixture(scope="module")
def behind(random_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    settings = {
        **PATIENT, "GPT4REC_REDIS_READ_TIMEOUT_MS": str(READ_MS), "GPT4REC_REDIS_WRITE_TIMEOUT_MS": str(WRITE_MS),
        "GPT4REC_HISTORY_CAP": "1000",
    }  # fmt: skip
    with TcpValkey(folder / "redis") as redis, proxy(redis.port) as between:
        where = ("--artifact", str(random_artifact), "--redis", redis.url_at(between.port))
        with serve(folder, *where, **settings) as service:
            items = items_of(random_artifact)
            assert post(service, "known", *items[:6]).status_code == 200
            eventually_rung(service, "known", "full")
            yield Behind(service, between, items)


def _expected(user: str, count: int) -> list[str]:
    return sorted(f"{user}-{n}" for n in range(count))


def test_a_redis_that_is_a_little_slow_is_waited_for(behind: Behind) -> None:
    behind.proxy.delay_s = 0.005
    try:
        assert [behind.sent("patience", n) for n in range(5)] == [200] * 5
        answers = [recommend(behind.service, user_id="patience", budget_ms=2000) for _ in range(5)]
    finally:
        behind.proxy.delay_s = 0.0
    assert {(answer["source"], answer["reason"]) for answer in answers} == {("gpt4rec", None)}


def test_where_a_read_takes_too_long_and_a_write_does_not_events_are_accepted(behind: Behind) -> None:
    behind.proxy.delay_s = 2 * READ_MS / 1000
    try:
        assert [behind.sent("slow", n) for n in range(3)] == [200] * 3
        answer = recommend(behind.service, user_id="slow", budget_ms=2000)
    finally:
        behind.proxy.delay_s = 0.0
    assert (answer["source"], answer["reason"]) == ("popular", "state_unavailable")
    eventually_rung(behind.service, "slow", "full")
    assert behind.stored("slow") == _expected("slow", 3)


def test_an_event_that_was_written_and_refused_is_not_there_twice(behind: Behind) -> None:
    behind.proxy.delay_s = 1.2 * WRITE_MS / 1000
    try:
        assert behind.sent("refused", 0) == 503
    finally:
        behind.proxy.delay_s = 0.0
    behind.sent_at_last("refused", 0)
    eventually_rung(behind.service, "refused", "full")
    assert behind.stored("refused") == _expected("refused", 1)


@pytest.mark.parametrize("fault", [Proxy.reset, Proxy.abandon], ids=["reset", "silently gone"])
def test_connections_that_are_lost_again_and_again_lose_no_event_and_break_nothing(
    fault: Callable[[Proxy], None], behind: Behind
) -> None:
    """Also the ones that lay idle in the pool: each event is accepted in the end, and lists come all the while."""
    user = fault.__name__
    behind.fill_pool(user)
    for round_ in range(3):
        fault(behind.proxy)
        for n in range(IDLE + 4 * round_, IDLE + 4 * round_ + 4):
            answer = recommend(behind.service, user_id="known", budget_ms=1000)
            assert answer["reason"] in (None, "state_unavailable")
            behind.sent_at_last(user, n)
    eventually_rung(behind.service, user, "full")
    assert behind.stored(user) == _expected(user, IDLE + 12)


def test_a_pool_of_silently_dead_connections_is_replaced_while_they_stay_dead(behind: Behind) -> None:
    """Each costs at most one refusal."""
    behind.fill_pool("dead")
    behind.proxy.abandon()
    refusals = [behind.sent_at_last("dead", n) for n in range(IDLE, 2 * IDLE)]
    assert sum(refusals) <= IDLE + 4
    assert refusals[-1] == 0
    eventually_rung(behind.service, "dead", "full")
    assert behind.stored("dead") == _expected("dead", 2 * IDLE)


def test_idle_connections_that_were_reset_cost_nothing(tmp_path: Path) -> None:
    """On the service's own event loop, which has its own words for a closed connection."""

    async def exercise(store: Store, between: Proxy) -> None:
        async def all_gone() -> bool:
            return not between.open

        for _ in range(5):
            await asyncio.gather(*(store.ping() for _ in range(6)))
            between.reset()
            await eventually(all_gone, within_s=10.0)
            for _ in range(20):
                await asyncio.sleep(0)  # the loop reads what came
            await store.ping()
            await store.ping()
        await store.close()

    with TcpValkey(tmp_path / "redis") as redis, proxy(redis.port) as between:
        store = Store(StoreSettings(url=redis.url_at(between.port), write_timeout_ms=5000))
        uvloop.run(exercise(store, between))
