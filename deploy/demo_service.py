"""The service that the demo starts, and the requests that it sends."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

READY_TIMEOUT_S = 60.0
# Items of a list.
SHOWN = 5


class DemoError(RuntimeError):
    """A step failed; the message names the step and the reason."""


@dataclass
class Service:
    """Runs `gpt4rec serve` in a process of its own on the loopback interface, with an embedded Valkey."""

    artifact: Path
    home: Path
    port: int

    def __enter__(self) -> Service:
        self.token = secrets.token_urlsafe(16)
        self.operator = {"Authorization": f"Bearer {self.token}"}
        self.port_file = self.home / "port"
        self.port_file.unlink(missing_ok=True)
        self.log = self.home / "service.log"
        environment = os.environ | {"GPT4REC_OPS_TOKENS": f"demo:{self.token}", "GPT4REC_PLAYGROUND": "true"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [
                    sys.executable, "-m", "service.cli", "serve", "--artifact", str(self.artifact),
                    "--port", str(self.port), "--port-file", str(self.port_file),
                    "--redis", "embedded", "--data-dir", str(self.home / "valkey"),
                ],
                env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def wait_until_ready(self) -> None:
        """Waits for /readyz. Raises DemoError with the end of the service's log if the service does not get ready."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError, httpx.HTTPError):
                self.url = f"http://127.0.0.1:{int(self.port_file.read_text('utf-8'))}"
                if httpx.get(f"{self.url}/readyz", timeout=1.0).status_code == httpx.codes.OK:
                    return
            time.sleep(0.05)
        tail = self.log.read_text("utf-8", "replace")[-2000:]
        raise DemoError(f"the service did not get ready; {self.log} ends with:\n{tail}")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Posts a body and returns the answer's. Raises httpx.HTTPError if the service refuses it."""
        answer = httpx.post(self.url + path, json=body, timeout=5.0).raise_for_status()
        result: dict[str, Any] = answer.json()
        return result

    def replace_history(self, user: str, events: list[dict[str, Any]]) -> None:
        """Erases a user and sends the events, so that a second demo does not add to the history of the first."""
        httpx.delete(f"{self.url}/users/{user}", headers=self.operator, timeout=5.0).raise_for_status()
        self.post("/events", {"events": [event | {"user_id": user} for event in events]})

    def recommend(self, user: str) -> dict[str, Any]:
        """Returns the answer of /recommend for a user."""
        return self.post("/recommend", {"user_id": user, "k": SHOWN, "seed": 7, "budget_ms": 1000, "explain": True})

    @contextlib.contextmanager
    def fallback_forced(self) -> Iterator[None]:
        """Forces the fallback as an operator would if the model misbehaved, and undoes it at the end."""
        self._set_mode("fallback")
        try:
            yield
        finally:
            self._set_mode("auto")

    def _set_mode(self, mode: str) -> None:
        httpx.put(
            f"{self.url}/ops/fallback",
            json={"mode": mode, "reason": "shown by gpt4rec demo"},
            headers=self.operator,
            timeout=5.0,
        ).raise_for_status()

    def addresses(self) -> str:
        """Returns the addresses and commands to try while the service runs."""
        return "\n".join(
            [
                f"  recommend  curl -s {self.url}/recommend -H 'content-type: application/json' "
                f"""-d '{{"user_id": "demo-new", "k": 5}}'""",
                f"  console    {self.url}/ops    token {self.token}",
                f"  metrics    {self.url}/metrics",
                f"  API        {self.url}/docs",
                f"  fallback   GPT4REC_OPS_TOKEN={self.token} .venv/bin/gpt4rec ops fallback set fallback "
                f"--reason 'trying it' --url {self.url}",
            ]
        )
