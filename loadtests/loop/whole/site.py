"""The service with its embedded Valkey, the sink, and the other commands, as processes on one work folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from loadtests.harness.served_process import started
from loadtests.harness.sink_process import SinkProcess
from service.common.errors import ServiceError
from service.store.streams.log_streams import STREAMS

_TOKEN = "simulator-token"  # noqa: S105 - of a service on the loopback interface, for the time of the command
PATIENCE_S = 600.0
# Simulated users wait: a list that is late on a busy machine is still the model's.
_SERVICE = {
    "GPT4REC_OPS_TOKENS": f"simulator:{_TOKEN}",
    "GPT4REC_DEADLINE_MS": "5000",
    "GPT4REC_DEADLINE_MAX_MS": "5000",
    "GPT4REC_REDIS_READ_TIMEOUT_MS": "2000",
    "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "5000",
    "GPT4REC_MODE_POLL_MS": "100",
    "GPT4REC_EXPOSURES_CAP": "100000",
}
_COMMANDS = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}


class SiteError(ServiceError):
    """A process of the loop did not do what it should."""


class Site:
    """A running service and its sink.

    Args:
        folder: Work folder.
        url: URL of the service.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self._ops = httpx.Client(base_url=url, timeout=PATIENCE_S, headers={"Authorization": f"Bearer {_TOKEN}"})
        self._redis = redis.Redis(unix_socket_path=str(folder / "valkey" / "valkey.sock"))

    @property
    def log(self) -> Path:
        """Folder of the log."""
        return self.folder / "log"

    @property
    def artifacts(self) -> Path:
        """Folder of artefacts."""
        return self.folder / "artifacts"

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns an answer for operators.

        Raises:
            SiteError: It is an error.
        """
        answer = self._ops.request(method, path, json=None if body is None else dict(body))
        if not answer.is_success:
            raise SiteError(f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}")
        found: dict[str, Any] = answer.json()
        return found

    def active(self) -> str:
        """Returns the version in service."""
        return str(self.ask("GET", "/ops/models")["active"])

    def running(self) -> list[str]:
        """Returns the names of the experiments that run."""
        found = self.ask("GET", "/ops/experiments")["experiments"]
        return [one["name"] for one in found if one["state"] == "running"]

    def drain(self) -> None:
        """Waits until everything that was answered is in the log.

        Raises:
            SiteError: It takes too long.
        """
        until(lambda: self._recorded() and self._read(), "the sink did not write the log")

    def loop_run(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts `gpt4rec loop run --once`, whose messages are kept in the work folder."""
        command = [
            "loop", "run", "--once", "--work", str(self.folder / "cycles"), "--log", str(self.log), "--artifacts",
            str(self.artifacts), "--run", str(self.folder / "run"), "--url", self.url, "--token", _TOKEN,
            "--metrics-port", "0", *arguments,
        ]  # fmt: skip
        return begun(self.folder, command, **environment)

    def close(self) -> None:
        """Closes the connections."""
        self._ops.close()
        self._redis.close()

    def _recorded(self) -> bool:
        lines = self._ops.get("/metrics").text.splitlines()
        waiting = [line for line in lines if line.startswith("gpt4rec_exposures_waiting{")]
        return all(float(line.rsplit(" ", 1)[1]) == 0.0 for line in waiting)

    def _read(self) -> bool:
        """Whether the sink has acknowledged the newest entry of every shard."""
        for stream in STREAMS:
            for key in self._redis.scan_iter(match=f"gpt4rec:{stream}:*"):
                newest = self._redis.xinfo_stream(key)["last-generated-id"]
                groups = self._redis.xinfo_groups(key)
                if not any(one["pending"] == 0 and one["last-delivered-id"] == newest for one in groups):
                    return False
        return True


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Runs service and sink on a work folder until the body ends; what they stored is there at the next start."""
    data = folder / "valkey"
    command = [sys.executable, "-m", "service.cli", "serve", "--artifact", str(folder / "artifacts"),
               "--log-level", "warning", "--redis", "embedded", "--data-dir", str(data)]  # fmt: skip
    with started(command, "/readyz", folder / "service.log", **_SERVICE) as (_, url, _):
        found = Site(folder, url)
        try:
            with SinkProcess(folder, f"unix://{data / 'valkey.sock'}", found.log, "--batch-s", "1", **_COMMANDS) as one:
                yield found
                one.stop()
        finally:
            found.close()


def begun(folder: Path, arguments: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
    """Starts a `gpt4rec` command, whose messages are kept in the work folder."""
    with (folder / "commands.log").open("ab") as out:
        out.write(f"$ gpt4rec {' '.join(arguments)}\n".encode())
        out.flush()
        return subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "service.cli", *arguments],
            stdout=out, stderr=out, env={**os.environ, **_COMMANDS, **environment},
        )  # fmt: skip


def run(folder: Path, *arguments: str, good: Sequence[int] = (0,)) -> int:
    """Runs a `gpt4rec` command to its end, and returns its exit code.

    Raises:
        SiteError: The exit code is not among the good ones.
    """
    return ended(folder, begun(folder, arguments), good)


def ended(folder: Path, process: subprocess.Popen[bytes], good: Sequence[int]) -> int:
    """Waits for a command; see `run`."""
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code not in good:
        tail = (folder / "commands.log").read_bytes()[-1500:].decode("utf-8", errors="replace")
        raise SiteError(f"a command ended with exit code {code}; {folder / 'commands.log'} ends with:\n{tail}")
    return code


def until(holds: Callable[[], bool], otherwise: str, patience_s: float = PATIENCE_S) -> None:
    """Waits until something holds.

    Raises:
        SiteError: It does not within the time.
    """
    last = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > last:
            raise SiteError(f"{otherwise} within {patience_s:g} s")
        time.sleep(0.05)
