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

import httpx

START_S = 60.0


class Serve:
    """A running service; `log` holds what it wrote so far."""

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
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GPT4REC_DATA_DIR": str(folder / "data"), **environment},
            )
        self.port = self._wait_for_port()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30.0)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def kill9(self) -> None:
        self.process.kill()
        self.process.wait(30.0)

    def stop(self) -> int:
        """Asks it to stop; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
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
    running = Serve(folder, *arguments, **environment)
    try:
        yield running
    finally:
        running.client.close()
        if running.process.poll() is None:
            running.kill9()
