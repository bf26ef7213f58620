"""A command of the project as a process that tells its port in a file: the base of sinks and intakes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

START_S = 120.0
_SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


class CommandProcess:
    """A running command with /metrics and /readyz on a port of its own choice. Ends with the context.

    Args:
        name: What its files are named after.
        folder: Where its messages and port file go.
        command: Module and arguments, without the metrics port.
        environment: Variables beside those of this process.
    """

    def __init__(self, name: str, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._port_file = folder / f"{name}-port-{time.monotonic_ns()}"
        self._messages = folder / f"{name}.log"
        port = ("--metrics-port", "0", "--port-file", str(self._port_file))
        with self._messages.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", *command, *port], stdout=out, stderr=out, env={**os.environ, **environment}
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
        return {name: float(value) for name, value in _SAMPLE.findall(self._get("metrics").text)}

    def readiness(self) -> dict[str, Any]:
        """Returns what /readyz says."""
        said: dict[str, Any] = self._get("readyz").json()
        return said

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

    def _get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}/{path}", timeout=30.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
