"""`gpt4rec ingest kafka` as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

START_S = 120.0
_SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


class IngestProcess:
    """A running intake.

    Args:
        folder: Where its log and port file go.
        artifact: Artefact folder.
        redis_url: The store.
        brokers: The brokers.
        arguments: More arguments of the command.
        environment: Settings.
    """

    def __init__(
        self, folder: Path, artifact: Path, redis_url: str, brokers: str, *arguments: str, **environment: str
    ) -> None:
        self._port_file = folder / f"ingest-port-{time.monotonic_ns()}"
        self._log = folder / "ingest.log"
        command = [
            sys.executable, "-m", "service.cli", "ingest", "kafka", "--artifact", str(artifact),
            "--redis", redis_url, "--brokers", brokers, "--metrics-port", "0", "--port-file", str(self._port_file),
            *arguments,
        ]  # fmt: skip
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
            )

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def port(self) -> int:
        """The port of its metrics; waits until it has joined the group.

        Raises:
            OSError: It ended, or did not start in time; the message is the end of its log.
        """
        until = time.monotonic() + START_S
        while not self._port_file.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise OSError(self.log[-1500:])
            time.sleep(0.02)
        return int(self._port_file.read_text(encoding="utf-8"))

    def metrics(self) -> dict[str, float]:
        """Returns its samples by name and labels, as they stand in /metrics."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30.0).text
        return {name: float(value) for name, value in _SAMPLE.findall(text)}

    def partitions(self) -> list[int]:
        """Returns the partitions that it reads."""
        found: list[int] = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=30.0).json()["partitions"]
        return found

    def kill9(self) -> None:
        """Kills the process."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Asks it to stop; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60.0)

    def close(self) -> None:
        """Ends it, if it still runs."""
        if self.process.poll() is None:
            self.kill9()

    def __enter__(self) -> IngestProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
