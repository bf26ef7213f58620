"""Replicas of `gpt4rec serve` on ports that they keep over a restart, of this release or another one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests.harness.checkout import Checkout
from loadtests.harness.served_process import NotReadyError

# A machine that does other work as well must look neither like an overloaded service nor like a Redis that is away.
SETTINGS = {
    "GPT4REC_DEADLINE_MS": "2000",
    "GPT4REC_REDIS_READ_TIMEOUT_MS": "1000",
    "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "2000",
    # No event of a round leaves its history, since it is looked for there.
    "GPT4REC_HISTORY_CAP": "2000",
    "GPT4REC_TRUSTED_PROXIES": "127.0.0.1",
    "GPT4REC_OPS_TOKENS": "rolling:rolling-token",
    "OMP_NUM_THREADS": "1",
}
# Longer than the proxies need to see that /readyz fails.
SHUTDOWN_DELAY_S = 2.0
_KEPT = (20_000, 32_000)
_READY_S = 120.0
_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Release:
    """What a replica runs.

    Attributes:
        name: For messages.
        artifact: The artefact that it serves.
        checkout: A checkout of another commit; None for the code of this process.
    """

    name: str
    artifact: Path
    checkout: Checkout | None = None

    def environment(self) -> dict[str, str]:
        """Returns the variables of a replica, those that the release does not know left out.

        Raises:
            CheckoutError: The folder is no checkout.
        """
        found = SETTINGS | {"GPT4REC_SHUTDOWN_DELAY_S": f"{SHUTDOWN_DELAY_S:g}"}
        if self.checkout is not None:
            found = {**self.checkout.known(found), "OMP_NUM_THREADS": "1", **self.checkout.environment()}
        return {name: value for name, value in found.items() if value}


@dataclass(slots=True)
class Replica:
    """One replica, and the process that runs it now.

    Attributes:
        port: Its port, which it keeps.
        folder: Its log and its data.
        redis_url: Where its events are.
        release: What it runs; None before its first start.
        killed: How often it had to be killed since it did not end by itself.
    """

    port: int
    folder: Path
    redis_url: str
    release: Release | None = None
    killed: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it said."""
        return self.folder / "log"

    def start(self, release: Release) -> None:
        """Starts it; see `wait_until_ready`."""
        self.release = release
        self.folder.mkdir(exist_ok=True)
        command = [
            sys.executable, "-m", "service.cli", "serve", "--port", str(self.port), "--redis", self.redis_url,
            "--artifact", str(release.artifact.resolve()), "--data-dir", str(self.folder / "data"),
            "--log-level", "warning",
        ]  # fmt: skip
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdout=out, stderr=out, env={**os.environ, **release.environment()}
            )

    def ready(self) -> bool:
        """Returns whether /readyz says so.

        Raises:
            NotReadyError: The process has ended.
        """
        if self.process is None or self.process.poll() is not None:
            raise NotReadyError(self.log.read_text(encoding="utf-8", errors="replace")[-500:])
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Asks it to stop, and waits until it has ended."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.killed += 1
            self.process.kill()
            self.process.wait()


def wait_for(what: Callable[[], bool], name: str, within_s: float = _READY_S) -> None:
    """Waits until something is so.

    Raises:
        NotReadyError: It is not so in time.
    """
    until = time.monotonic() + within_s
    while not what():
        if time.monotonic() > until:
            raise NotReadyError(f"{name} within {within_s:g} s")
        time.sleep(0.05)


def kept_ports(number: int) -> list[int]:
    """Returns free ports that the system gives to nobody while a replica is between two starts.

    Those that it gives to outgoing connections lie above 32767 by default.
    """
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(*_KEPT)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


@contextmanager
def replicas(folder: Path, number: int, redis_url: str, release: Release) -> Iterator[Sequence[Replica]]:
    """Runs replicas of a release until the body ends; whatever runs in their places then is stopped.

    Args:
        folder: An existing folder.
        number: How many.
        redis_url: Where their events are.
        release: What they run at first.

    Raises:
        NotReadyError: One of them does not become ready.
    """
    ports = kept_ports(number)
    found = [Replica(port, folder / f"replica-{n + 1}", redis_url) for n, port in enumerate(ports)]
    try:
        for replica in found:
            replica.start(release)
        for replica in found:
            wait_for(replica.ready, f"replica {replica.url} is not ready")
        yield found
    finally:
        for replica in found:
            if replica.process is not None and replica.process.poll() is None:
                replica.process.kill()
                replica.process.wait()
