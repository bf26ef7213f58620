"""Wall clocks that jump, or disagree with another machine's: deadlines know none of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from loadtests.harness.faulty_model import Control, faulty
from loadtests.harness.served_process import Served
from tests.support.processes import OPS, PATIENT, event, items_of
from tests.support.valkey import Valkey

SHORT = {**PATIENT, "GPT4REC_DEADLINE_MS": "1000"}


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


@pytest.fixture
def replica(artifact: Path, valkey: Valkey) -> Iterator[tuple[Served, Control]]:
    with faulty(artifact, "--redis", valkey.url, **SHORT) as running:
        yield running


def clock_of(client: httpx.Client) -> float:
    """Seconds that the service's wall clock is ahead, as its Date header says once a second."""
    return parsedate_to_datetime(client.get("/healthz").headers["date"]).timestamp() - time.time()


def move(client: httpx.Client, control: Control, seconds: float) -> None:
    control.set(clock_s=seconds)
    until = time.monotonic() + 20.0
    while abs(clock_of(client) - seconds) > 2.5:
        assert time.monotonic() < until
        time.sleep(0.05)


def ask(client: httpx.Client, user: str, **headers: str) -> tuple[str, str | None, set[str]]:
    answer = client.post("/recommend", json={"user_id": user, "k": 5}, headers=headers)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["rung"], found["reason"], {item["item_id"] for item in found["items"]}


def write(client: httpx.Client, user: str, item: str, time_ms: float) -> None:
    sent = client.post("/events", json={"events": [event(user, item, int(time_ms))]})
    assert (sent.status_code, sent.json().get("accepted")) == (200, 1), sent.text


@pytest.mark.parametrize("seconds", [3600.0, -3600.0], ids=["ahead", "back"])
def test_a_clock_that_jumps_by_an_hour_changes_no_rung(
    artifact: Path, replica: tuple[Served, Control], seconds: float
) -> None:
    """Neither do requests of a proxy whose clock is right."""
    service, control = replica
    items = items_of(artifact)
    long_ago = (time.time() - 2 * 3600) * 1000
    with httpx.Client(base_url=service.url, timeout=30.0) as client:
        write(client, "u1", items[0], long_ago)
        for n, moved in enumerate((seconds, 0.0), start=1):
            move(client, control, moved)
            for _ in range(5):
                rung, reason, listed = ask(client, "u1", **{"X-Request-Start": str(int(time.time() * 1000))})
                assert (rung, reason) == ("full", None)
                assert not listed & set(items[:n])
            write(client, "u1", items[n], long_ago + n)
            assert not ask(client, "u1")[2] & set(items[: n + 1])
        assert client.get("/readyz").json()["status"] == "ready"


def test_a_proxy_whose_clock_is_seconds_behind_is_soon_no_longer_believed(replica: tuple[Served, Control]) -> None:
    service, _ = replica
    with httpx.Client(base_url=service.url, timeout=30.0) as client:
        answers = [
            ask(client, "u1", **{"X-Request-Start": str(int((time.time() - 5.0) * 1000))})[:2] for _ in range(80)
        ]
        assert set(answers[:5]) == {("popular", "deadline")}
        assert set(answers[64:]) == {("full", None)}


def test_replicas_minutes_apart_see_each_others_events_and_modes(
    artifact: Path, replica: tuple[Served, Control], valkey: Valkey
) -> None:
    one, _ = replica
    items = items_of(artifact)
    with (
        faulty(artifact, "--redis", valkey.url, **SHORT) as (two, control),
        httpx.Client(base_url=one.url, timeout=30.0) as here,
        httpx.Client(base_url=two.url, timeout=30.0) as there,
    ):
        for minutes in (4.0, -4.0):
            move(there, control, minutes * 60.0)
            user = f"u{minutes:g}"
            now_ms = time.time() * 1000
            for n in range(6):
                write((here, there)[n % 2], user, items[n], now_ms + n)
                for client in (here, there):
                    rung, reason, listed = ask(client, user)
                    assert (rung, reason) == ("full", None)
                    assert not listed & set(items[: n + 1])
            known = [client.get(f"/users/{user}", headers=OPS).json()["history"] for client in (here, there)]
            assert known[0] == known[1]
            assert [one["item_id"] for one in known[0]] == items[:6]
            for client, other in ((here, there), (there, here)):
                for mode in ("fallback", "auto"):
                    body = {"mode": mode, "reason": "drill", "expires_in_s": 60}
                    assert client.put("/ops/fallback", headers=OPS, json=body).status_code == 200
                    until = time.monotonic() + 10.0
                    while other.get("/ops/fallback", headers=OPS).json()["mode"] != mode:
                        assert time.monotonic() < until
                        time.sleep(0.02)
