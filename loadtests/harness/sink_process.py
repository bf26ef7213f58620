"""`gpt4rec loop sink` as a process."""

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


class SinkProcess:
    """A running sink.

    Args:
        folder: Where its messages and port file go.
        redis_url: The store.
        log: Folder of the log.
        arguments: More arguments of the command.
        environment: Settings.
    """

    def __init__(self, folder: Path, redis_url: str, log: Path, *arguments: str, **environment: str) -> None:
        self._port_file = folder / f"sink-port-{time.monotonic_ns()}"
        self._messages = folder / "sink.log"
        command = [
            sys.executable, "-m", "deploy.loop.command", "sink", "--redis", redis_url, "--log", str(log),
            "--metrics-port", "0", "--port-file", str(self._port_file), *arguments,
        ]  # fmt: skip
        with self._messages.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdout=out, stderr=out, env={**os.environ, "POLARS_MAX_THREADS": "1", **environment}
            )

    @property
    def messages(self) -> str:
        """What it has written so far."""
        return self._messages.read_text(encoding="utf-8", errors="replace")

    @property
    def port(self) -> int:
        """The port of its metrics; waits until it is known.

        Raises:
            OSError: It ended, or did not start in time; the message is the end of what it wrote.
        """
        until = time.monotonic() + START_S
        while not self._port_file.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise OSError(self.messages[-1500:])
            time.sleep(0.02)
        return int(self._port_file.read_text(encoding="utf-8"))

    def metrics(self) -> dict[str, float]:
        """Returns its samples by name and labels, as they stand in /metrics."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30.0).text
        return {name: float(value) for name, value in _SAMPLE.findall(text)}

    def ready(self) -> dict[str, bool]:
        """Returns what /readyz says."""
        checks: dict[str, bool] = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=30.0).json()["checks"]
        return checks

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

    def __enter__(self) -> SinkProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
