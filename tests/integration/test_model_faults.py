"""A model that is slow, raises, says nothing sensible or hangs, inside a real service: every list comes, from a rung
below, and the model is back by itself when it is well."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.harness.faulty_model import Control, faulty
from tests.support.processes import OPS, PATIENT, T, event, items_of

BUDGET_MS = 300.0
# Judged by few requests, and soon.
BRISK = {
    **PATIENT,
    "GPT4REC_BREAKER_MIN_ATTEMPTS": "5",
    "GPT4REC_BREAKER_WINDOW_S": "0.5",
    "GPT4REC_BREAKER_OPEN_S": "0.3",
    "GPT4REC_BREAKER_HALF_OPEN_PROBES": "3",
    "GPT4REC_ENGINE_STALL_S": "0.5",
}
WAIT_S = 60.0
K = 5


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


class Asker:
    """One user after the other, each with a history; every list is checked."""

    def __init__(self, url: str, artifact: Path) -> None:
        self.items = items_of(artifact)
        self.client = httpx.Client(base_url=url, timeout=30.0)
        self.seen: dict[str, set[str]] = {}

    def write(self, user: str) -> None:
        """An acknowledged event more."""
        seen = self.seen.setdefault(user, set())
        item = self.items[len(seen)]
        sent = self.client.post("/events", json={"events": [event(user, item, T + len(seen) * 1000)]})
        assert sent.status_code == 200, sent.text
        seen.add(item)

    def ask(self, user: str) -> dict[str, Any]:
        answer = self.client.post("/recommend", json={"user_id": user, "k": K, "budget_ms": BUDGET_MS})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        ids = [item["item_id"] for item in found["items"]]
        assert len(ids) == len(set(ids)) == K
        assert set(ids) <= set(self.items)
        if found["source"] != "popular":
            assert not set(ids) & self.seen.get(user, set())
        return found

    def until_asked(self) -> None:
        """The model answers some request again."""
        until = time.monotonic() + WAIT_S
        while (answer := self.ask("u0"))["rung"] != "full":
            assert time.monotonic() < until, answer

    def until_well(self) -> None:
        """Full lists, one after the other, without anybody's help."""
        until, row = time.monotonic() + WAIT_S, 0
        while row < 20:
            answer = self.ask(f"u{row % 4}")
            row = row + 1 if (answer["rung"], answer["reason"]) == ("full", None) else 0
            assert time.monotonic() < until, answer


@contextmanager
def misbehaving(artifact: Path, **environment: str) -> Iterator[tuple[Asker, Control]]:
    with faulty(artifact, **{**BRISK, **environment}) as (service, control):
        asker = Asker(service.url, artifact)
        for user in range(4):
            asker.write(f"u{user}")
        asker.until_well()
        try:
            yield asker, control
            assert service.alive()
        finally:
            asker.client.close()


@pytest.mark.parametrize("fault", ["raise_share", "nan_share"], ids=["raises", "nan"])
def test_recommend_always_answers_while_the_model_fails_and_recovers_by_itself(artifact: Path, fault: str) -> None:
    with misbehaving(artifact) as (asker, control):
        control.set(**{fault: 1.0})
        reached = below_the_model(asker, until_reason={"breaker_open", "error_budget"})
        assert set(reached) <= {"model_error", "breaker_open", "error_budget"}
        opened = asker.client.get("/ops/fallback", headers=OPS).json()["breaker"]
        assert opened in ("open", "half_open")
        control.set()
        asker.until_asked()


def test_a_model_that_is_slow_is_soon_asked_no_more_than_it_takes_to_see_that_it_is_not(artifact: Path) -> None:
    with misbehaving(artifact) as (asker, control):
        control.set(run_ms=1000.0)
        reached = below_the_model(asker, until_reason={"deadline", "overload"}, times=20)
        assert set(reached) <= {"deadline", "overload", "breaker_open", "latency_budget"}
        control.set()
        asker.until_well()


def below_the_model(asker: Asker, *, until_reason: set[str], times: int = 1) -> Counter[str]:
    """The reasons of the answers until one of these was given so often; events are stored as ever."""
    reached = Counter[str]()
    until = time.monotonic() + WAIT_S
    while sum(reached[reason] for reason in until_reason) < times:
        user = f"u{reached.total() % 4}"
        if len(asker.seen[user]) < 5:
            asker.write(user)
        answer = asker.ask(user)
        if answer["rung"] == "full":  # a run that had begun before
            assert not reached
            continue
        assert answer["rung"] in ("item_cf", "popular")
        reached[answer["reason"]] += 1
        assert time.monotonic() < until, reached
    return reached


def test_a_model_that_works_again_gets_all_of_the_traffic_step_by_step(artifact: Path) -> None:
    with misbehaving(artifact) as (asker, control):
        control.set(raise_share=1.0)
        while asker.client.get("/ops/fallback", headers=OPS).json()["breaker"] != "open":
            assert asker.ask("u0")["rung"] == "item_cf"
        control.set()
        asker.until_well()
        assert asker.client.get("/ops/fallback", headers=OPS).json()["breaker"] == "closed"


def test_a_model_that_hangs_is_told_to_the_load_balancer_until_it_runs_again(artifact: Path) -> None:
    with misbehaving(artifact) as (asker, control):
        control.set(hang=True)
        answer = asker.ask("u0")
        assert (answer["rung"], answer["reason"]) == ("item_cf", "deadline")
        _until_ready(asker, 503)
        asker.write("u1")
        assert asker.ask("u1")["rung"] == "item_cf"
        assert asker.client.get("/healthz").json()["engine"] is False
        control.set()
        _until_ready(asker, 200)
        asker.until_well()


def test_a_model_that_fails_now_and_then_is_tried_once_more(artifact: Path) -> None:
    """A second, narrow attempt answers for most of the runs that fail; what it answers is the model's."""
    with misbehaving(artifact, GPT4REC_BREAKER_FAILURE_RATIO="1", GPT4REC_ERROR_BUDGET_SHARE="1") as (asker, control):
        control.set(raise_share=0.3)
        answers = Counter((one["rung"], one["reason"]) for one in (asker.ask(f"u{n % 4}") for n in range(60)))
    assert set(answers) <= {("full", None), ("narrow", "model_error"), ("item_cf", "model_error")}
    assert answers["full", None] > answers["narrow", "model_error"] > 0


def _until_ready(asker: Asker, status: int) -> None:
    until = time.monotonic() + WAIT_S
    while asker.client.get("/readyz").status_code != status:
        assert time.monotonic() < until
        time.sleep(0.02)
