"""Invariants 7 and 8 against processes: Redis is killed under load, slow, frozen, cut off."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.harness.tcp_proxy import Proxy, proxy
from tests.support.processes import (
    OPS,
    PATIENT,
    Serve,
    T,
    event,
    eventually_rung,
    history,
    ids,
    items_of,
    post,
    recommend,
    serve,
)
from tests.support.valkey import TcpValkey, pid_of_embedded

THREADS = 5
PER_SECOND = 50


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


@dataclass(frozen=True)
class Seen:
    path: str
    sent: float
    status: int
    body: dict[str, Any]


def readiness(service: Serve, status: str, within_s: float = 20.0) -> httpx.Response:
    """Asks until the service says this of itself: it looks at Redis once a second; returns that answer."""
    until = time.monotonic() + within_s
    while (answer := service.client.get("/readyz")).json()["status"] != status:
        assert time.monotonic() < until, answer.text
        time.sleep(0.05)
    return answer


class Load:
    """About `PER_SECOND` requests a second, lists and events in turn; every event has an id of its own."""

    def __init__(self, service: Serve, items: list[str]) -> None:
        self._url, self._items = service.client.base_url, items
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(THREADS)]
        self.seen: list[Seen] = []
        self.acknowledged: dict[str, set[str]] = {f"u{n}": set() for n in range(THREADS)}

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(30.0)

    def more(self, number: int, path: str) -> None:
        """Waits for so many more answers."""
        wanted, until = len(self.of(path)) + number, time.monotonic() + 60.0
        while len(self.of(path)) < wanted:
            assert time.monotonic() < until
            time.sleep(0.01)

    def of(self, path: str) -> list[Seen]:
        return [one for one in list(self.seen) if one.path == path]

    def _run(self, number: int) -> None:
        user, count = f"u{number}", 0
        with httpx.Client(base_url=self._url, timeout=30.0) as client:
            while not self._done.wait(THREADS / PER_SECOND):
                count += 1
                sent = time.monotonic()
                if count % 2:
                    path, body = "/recommend", {"user_id": user, "k": 5}
                else:
                    item, name = self._items[count % len(self._items)], f"{user}-{count}"
                    path, body = "/events", {"events": [event(user, item, T + count, event_id=name)]}
                answer = client.post(path, json=body)
                if path == "/events" and answer.status_code == 200:
                    self.acknowledged[user].add(name)
                self.seen.append(Seen(path, sent, answer.status_code, answer.json()))


def test_recommend_always_answers_while_redis_is_killed_under_load(artifact: Path, tmp_path: Path) -> None:
    """kill -9 of the server: every list comes, degraded; no event is acknowledged that is not there afterwards; all is
    as before once the server is back."""
    items = items_of(artifact)
    settings = {**PATIENT, "GPT4REC_HISTORY_CAP": "100000"}
    with (
        TcpValkey(tmp_path / "redis") as redis,
        serve(tmp_path, "--artifact", str(artifact), "--redis", redis.url, **settings) as service,
    ):
        eventually_rung(service, "u0", "full")
        with Load(service, items) as load:
            load.more(30, "/events")
            redis.kill9()
            killed = time.monotonic()
            load.more(40, "/events")
            ready = readiness(service, "degraded")
            outage = [one for one in load.seen if one.sent > killed]
            redis.start()
            answer = eventually_rung(service, "u0", "full")
            load.more(30, "/events")
        stored = {user: Counter(one["event_id"] for one in history(service, user)) for user in load.acknowledged}
        metrics = service.client.get("/metrics").text
        log = service.log

    assert {one.status for one in load.of("/recommend")} == {200}
    lists = [one.body for one in outage if one.path == "/recommend"]
    assert len(lists) > 20
    assert {(body["source"], body["degraded"], body["reason"]) for body in lists} == {
        ("popular", True, "state_unavailable")
    }
    assert {one.status for one in outage if one.path == "/events"} == {503}
    assert {one.status for one in load.of("/events")} == {200, 503}
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert (answer["source"], answer["reason"]) == ("gpt4rec", None)
    assert {one.status for one in load.of("/events")[-10:]} == {200}
    for user, acknowledged in load.acknowledged.items():
        assert len(acknowledged) >= 5
        assert acknowledged <= set(stored[user])
        assert set(stored[user].values()) == {1}
    assert 'gpt4rec_redis_errors_total{operation="append"}' in metrics
    for secret in (TcpValkey.PASSWORD, "tok"):
        assert f'"{secret}' not in log and f":{secret}" not in log


@dataclass(frozen=True)
class Behind:
    """A service behind a proxy to its Redis; user "known" has a history."""

    service: Serve
    proxy: Proxy
    redis: TcpValkey
    items: list[str]


@pytest.fixture(scope="module")
def behind(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    settings = {**PATIENT, "GPT4REC_REDIS_READ_TIMEOUT_MS": "150", "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "300"}
    with TcpValkey(folder / "redis") as redis, proxy(redis.port) as between:
        url = redis.url.replace(str(redis.port), str(between.port))
        with serve(folder, "--artifact", str(artifact), "--redis", url, **settings) as service:
            items = items_of(artifact)
            assert post(service, "known", *items[:6]).status_code == 200
            eventually_rung(service, "known", "full")
            yield Behind(service, between, redis, items)


@pytest.mark.parametrize("fault", ["slow", "frozen", "cut", "silent", "cut in the middle"])
def test_recommend_always_answers_when_redis_is(fault: str, behind: Behind) -> None:
    """Whatever Redis does: an answer within the budget, for known and unknown users and for inline events. Once Redis
    is well, the model again."""
    service, budget_ms = behind.service, 1000
    inline = [{"item_id": behind.items[0]}]
    if fault == "slow":
        behind.proxy.delay_s = 0.5
    elif fault == "frozen":
        behind.redis.freeze()
    elif fault == "silent":
        behind.proxy.silent = True
    elif fault == "cut in the middle":
        behind.proxy.cutting = True
    else:
        behind.proxy.refuse()
    try:
        for _ in range(3):
            for body in ({"user_id": "known"}, {"user_id": "nobody"}, {"session_id": "s"}):
                answer = recommend(service, **body, budget_ms=budget_ms)
                assert (answer["source"], answer["reason"]) == ("popular", "state_unavailable")
                assert answer["latency_ms"] < budget_ms
            answer = recommend(service, user_id="known", events=inline, budget_ms=budget_ms)
            assert (answer["rung"], answer["reason"]) == ("narrow", "state_unavailable")
            assert recommend(service, events=inline)["rung"] == "full"
        assert post(service, "known", behind.items[7], start_ms=T + 60_000).status_code == 503
        assert service.client.get("/items/" + behind.items[0] + "/similar").status_code == 200
        assert readiness(service, "degraded").status_code == 200
    finally:
        behind.proxy.delay_s = 0.0
        behind.proxy.silent = behind.proxy.cutting = False
        behind.redis.thaw()
        behind.proxy.accept()
    answer = eventually_rung(service, "known", "full")
    assert not set(ids(answer)) & set(behind.items[:6])


def test_a_mode_forced_while_redis_is_away_outlives_a_restart(artifact: Path, tmp_path: Path) -> None:
    away = ("--artifact", str(artifact), "--redis", f"unix://{tmp_path}/nothing.sock")
    inline = [{"item_id": items_of(artifact)[0]}]
    with serve(tmp_path, *away, **PATIENT) as service:
        assert recommend(service, events=inline)["rung"] == "full"
        body = {"mode": "fallback", "reason": "drill"}
        assert service.client.put("/ops/fallback", json=body, headers=OPS).status_code == 200
        service.kill9()
    with serve(tmp_path, *away, **PATIENT) as service:
        assert recommend(service, events=inline)["reason"] == "forced"
        mode = service.client.get("/ops/fallback", headers=OPS).json()
        assert (mode["mode"], mode["actor"], mode["reason"]) == ("fallback", "alice", "drill")
    other = {**PATIENT, "GPT4REC_REDIS_PREFIX": "another:"}
    with serve(tmp_path, *away, **other) as service:
        assert recommend(service, events=inline)["rung"] == "full"


def test_an_embedded_server_that_dies_is_restarted_where_it_was(artifact: Path, tmp_path: Path) -> None:
    """Also in a folder whose name is too long for a socket, and under several workers."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    where = ("--artifact", str(artifact), "--data-dir", str(deep), "--workers", "2")
    items = items_of(artifact)
    # Without it, what is acknowledged while a busy disk is being synced is in the server's memory alone.
    durable = {"GPT4REC_REDIS_DURABILITY": "aof", "GPT4REC_REDIS_DURABILITY_TIMEOUT_MS": "20000"}
    with serve(tmp_path, *where, **PATIENT, **durable) as service:
        assert post(service, "u1", *items[:6]).status_code == 200
        os.kill(pid_of_embedded(deep), signal.SIGKILL)
        until = time.monotonic() + 20.0
        while post(service, "u1", items[7], start_ms=T + 60_000).status_code != 200:
            assert time.monotonic() < until, service.log
            time.sleep(0.05)
        # The other worker may have looked for the server a moment ago.
        while service.client.get("/users/u1", headers=OPS).status_code == 503:
            assert time.monotonic() < until, service.log
        assert [one["item_id"] for one in history(service, "u1")] == [*items[:6], items[7]]
        assert service.stop() == 0
