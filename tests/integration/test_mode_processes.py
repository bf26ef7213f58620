"""The mode of two real services on one Valkey: clocks that jump, and a server that freezes or is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.harness.faulty_model import Control, faulty
from loadtests.harness.served_process import Served
from tests.support.aio import asynchronous
from tests.support.processes import OPS, PATIENT
from tests.support.serving import serving
from tests.support.valkey import Valkey


@dataclass(frozen=True)
class Replica:
    service: Served
    control: Control

    def told(self) -> dict[str, Any]:
        said = httpx.get(f"{self.service.url}/ops/fallback", headers=OPS, timeout=10.0)
        assert said.status_code == 200
        found: dict[str, Any] = said.json()
        return found

    def force(self, mode: str, reason: str, **more: Any) -> dict[str, Any]:
        body = {"mode": mode, "reason": reason, **more}
        said = httpx.put(f"{self.service.url}/ops/fallback", headers=OPS, json=body, timeout=10.0)
        assert said.status_code == 200
        found: dict[str, Any] = said.json()
        return found

    def ended(self) -> bool:
        return bool(self.told()["mode"] == "auto")

    def reasons(self) -> list[str]:
        """Of the audit, newest first."""
        entries = httpx.get(f"{self.service.url}/ops/audit", headers=OPS, timeout=10.0).json()["entries"]
        return [entry["reason"] for entry in entries]


@dataclass(frozen=True)
class Pair:
    valkey: Valkey
    one: Replica
    other: Replica

    def agree(self, mode: str) -> None:
        """Waits until both go by the mode and share it."""
        eventually(lambda: all((said := r.told())["mode"] == mode and said["shared"] for r in (self.one, self.other)))


def eventually(holds: Callable[[], bool], within_s: float = 20.0) -> float:
    """Polls; returns the seconds it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def running(random_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("mode")
    valkey = Valkey(folder / "valkey")
    valkey.start()
    settings = {**PATIENT, "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "250"}
    with ExitStack() as stack:
        stack.callback(valkey.stop)
        one, other = (
            Replica(
                *stack.enter_context(
                    faulty(random_artifact, "--redis", valkey.url, "--data-dir", str(folder / name), **settings)
                )
            )
            for name in ("one", "other")
        )
        yield Pair(valkey, one, other)


@pytest.fixture
def pair(running: Pair) -> Pair:
    """Both replicas agree on `auto`."""
    running.one.force("auto", "the test begins")
    running.agree("auto")
    return running


def test_a_mode_ends_on_both_replicas_together_though_their_clocks_disagree(pair: Pair) -> None:
    pair.one.control.set(clock_s=-3600.0)
    pair.other.control.set(clock_s=3600.0)
    try:
        pair.other.force("fallback", "clocks", expires_in_s=4)
        pair.agree("fallback")
        held_s = eventually(lambda: pair.one.ended() or pair.other.ended())
        assert held_s > 0.5
        assert eventually(lambda: pair.one.ended() and pair.other.ended()) < 5.0
    finally:
        pair.one.control.set()
        pair.other.control.set()


def test_a_frozen_redis_does_not_hold_a_change_which_says_that_it_is_not_shared(pair: Pair) -> None:
    pair.valkey.sigstop()
    try:
        began = time.monotonic()
        said = pair.one.force("fallback", "frozen")
        assert time.monotonic() - began < 5.0  # the write time-out of 0.25 s, and a busy test machine
        assert (said["mode"], said["shared"]) == ("fallback", False)
        assert pair.other.told()["mode"] == "auto"
    finally:
        pair.valkey.sigcont()
    pair.agree("fallback")


def test_changes_made_apart_come_to_the_last_one_and_both_are_audited(pair: Pair) -> None:
    pair.valkey.kill9()
    try:
        assert not pair.other.force("model", "first")["shared"]
        command = [
            sys.executable, "-m", "service.cli", "ops", "fallback", "set", "fallback", "--reason", "last",
            "--url", pair.one.service.url, "--token", "tok",
        ]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert "It is not shared: it holds on this replica only." in done.stdout
        assert "Redis is unavailable" in done.stderr
        assert (pair.one.told()["mode"], pair.other.told()["mode"]) == ("fallback", "model")
    finally:
        pair.valkey.restart()
    pair.agree("fallback")
    assert pair.one.told()["version"] == pair.other.told()["version"]
    for replica in (pair.one, pair.other):
        assert {"first", "last"} <= set(replica.reasons())


@asynchronous
async def test_a_replica_goes_by_the_mode_in_force_from_its_start(valkey: Valkey) -> None:
    async with serving(redis_url=valkey.url) as service:
        await service.runtime.space.mode.set("fallback", reason="drill", actor="ops")
    async with serving(redis_url=valkey.url, mode_poll_ms=60_000) as service:
        assert service.runtime.space.mode.current() == "fallback"
