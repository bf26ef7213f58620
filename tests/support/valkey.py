"""A real Valkey for tests, and the ways in which one fails."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.harness.valkey import TcpValkey
from service.store.embedded_valkey import EmbeddedValkey

__all__ = ["TcpValkey", "Valkey", "pid_of_embedded", "shared_valkey", "valkey"]


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
