"""`gpt4rec serve` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from service.artifact.artifact import Artifact

START_S = 60.0
T = 1_700_000_000_000
OPS = {"Authorization": "Bearer tok"}
# A busy test machine must not look like an overloaded service.
PATIENT = {
    "GPT4REC_DEADLINE_MS": "2000",
    "GPT4REC_REDIS_READ_TIMEOUT_MS": "500",
    "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "1000",
    "GPT4REC_OPS_TOKENS": "alice:tok",
    "OMP_NUM_THREADS": "1",
}


class Serve:
    """A running service; `log` holds what it wrote so far, unless a subclass has another `output`."""

    output: int | None = None

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self._port_file = folder / f"port-{time.monotonic_ns()}"
        self._log = folder / "serve.log"
        command = [
            sys.executable, "-m", "service.cli", "serve", "--port", "0", "--port-file", str(self._port_file),
            *arguments,
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log if self.output is None else self.output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GPT4REC_DATA_DIR": str(folder / "data"), **environment},
            )
        try:
            self.port = self._wait_for_port()
        except BaseException:
            self.process.kill()
            self.process.wait(30.0)
            raise
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30.0)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def kill9(self) -> None:
        self.process.kill()
        self.process.wait(30.0)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to stop; returns its exit status."""
        self.process.send_signal(sig)
        return self.process.wait(30.0)

    def _wait_for_port(self) -> int:
        until = time.monotonic() + START_S
        while not self._port_file.exists():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)
        return int(self._port_file.read_text())


@contextmanager
def serve(folder: Path, *arguments: str, **environment: str) -> Iterator[Serve]:
    with kept(Serve(folder, *arguments, **environment)) as running:
        yield running


@contextmanager
def kept(running: Serve) -> Iterator[Serve]:
    """Ends the service with the body."""
    try:
        yield running
    finally:
        running.client.close()
        if running.process.poll() is None:
            running.kill9()


def items_of(artifact: Path) -> list[str]:
    return list(Artifact.open(artifact).catalogue.item_ids)


def event(user: str, item: str, time_ms: int, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "type": "click", "timestamp": time_ms, **more}


def post(service: Serve, user: str, *items: str, start_ms: int = T) -> httpx.Response:
    """Clicks of a user, a second apart."""
    events = [event(user, item, start_ms + n * 1000) for n, item in enumerate(items)]
    return service.client.post("/events", json={"events": events})


def recommend(service: Serve, **body: Any) -> dict[str, Any]:
    answer = service.client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def history(service: Serve, user: str) -> list[dict[str, Any]]:
    """What is kept of a user; nothing of an unknown one."""
    answer = service.client.get(f"/users/{user}", headers=OPS)
    assert answer.status_code in (200, 404), answer.text
    events: list[dict[str, Any]] = answer.json().get("history", [])
    return events


def eventually_rung(service: Serve, user: str, rung: str, within_s: float = 20.0) -> dict[str, Any]:
    """Asks until this rung answers; returns that answer."""
    until = time.monotonic() + within_s
    while (answer := recommend(service, user_id=user))["rung"] != rung:
        assert time.monotonic() < until, answer
        time.sleep(0.05)
    return answer
