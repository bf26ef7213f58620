"""Two replicas on one Valkey that belongs to neither, for the measurement of mode changes."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import redis

from loadtests.harness.bench import Bench
from loadtests.harness.served_process import Served, serve
from loadtests.load.open_loop_driver import drive_now
from loadtests.reliability.stress import OPS, Crowd, crowd, ops_fallback
from service.store.redis.embedded_valkey import EmbeddedValkey

USERS = ("one", "other")
RATE = 20.0
# A trial fails after so many seconds; so many lists of each replica are checked after it.
GIVE_UP_S, AFTERWARDS = 5.0, 10
_BETWEEN_S = 0.002
_PIECE_S = 2.0


class Replica:
    """A service, and the lists it gives to one user."""

    def __init__(self, served: Served, body: bytes) -> None:
        self.served, self.url, self._body = served, served.url, body
        self.rung = ""  # of its latest list
        self._connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=GIVE_UP_S)

    def follows(self, mode: str) -> bool:
        """Returns whether the next list follows this mode: a forced mode is named as the reason."""
        self._connection.request("POST", "/recommend", self._body, {"Content-Type": "application/json"})
        answer = orjson.loads(self._connection.getresponse().read())
        forced: bool = answer["reason"] == "forced"
        self.rung = answer["rung"]
        return forced == (mode == "fallback")

    def reached(self, mode: str, began: float) -> tuple[float | None, int]:
        """Waits for the first list that follows the mode.

        Returns:
            Seconds from `began` to that list (None if there was none in time), and how many of the lists right after it
            followed another mode.
        """
        while not self.follows(mode):
            if time.perf_counter() - began > GIVE_UP_S:
                return None, 0
            time.sleep(_BETWEEN_S)
        took = time.perf_counter() - began
        return took, sum(not self.follows(mode) for _ in range(AFTERWARDS))

    def force(self, mode: str, reason: str) -> dict[str, Any]:
        """Changes the mode at this replica and returns the answer."""
        return ops_fallback(self.url, "PUT", {"mode": mode, "reason": reason})

    def kill9(self) -> None:
        """Kills the process of the replica."""
        os.kill(self.served.pid, signal.SIGKILL)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


class Setting:
    """The server, the two replicas, and the data folders they keep over a restart."""

    def __init__(self, bench: Bench, folder: Path, server: EmbeddedValkey) -> None:
        self.bench, self.server = bench, server
        self._data = [folder / "one", folder / "other"]
        self._users: Crowd | None = None

    def named(self) -> list[str]:
        """Returns a URL for each replica, with its own user so that the server can treat them differently."""
        with redis.Redis.from_url(self.server.url) as client:
            for name in USERS:
                client.execute_command("ACL", "SETUSER", name, "on", f">{name}", "~*", "+@all", "allchannels")
        return [self.server.url.replace("unix://", f"unix://{name}:{name}@") for name in USERS]

    @contextmanager
    def replicas(self, urls: Sequence[str], *, forget: bool = False) -> Iterator[list[Replica]]:
        """Starts both replicas and yields them when ready. With `forget`, the second one knows only what Redis has."""
        if forget:
            self._data[1] = self._data[1].with_name("another")
        with ExitStack() as stack:
            served = [
                stack.enter_context(serve(self.bench.artifact, "--redis", url, GPT4REC_DATA_DIR=str(data), **OPS))
                for url, data in zip(urls, self._data, strict=True)
            ]
            users = self._users = self._users or crowd(self.bench, served[0].url)
            found = [Replica(one, users.bodies[n]) for n, one in enumerate(served)]
            for one in found:
                stack.callback(one.close)
            yield found

    @contextmanager
    def loaded(self, replicas: Sequence[Replica]) -> Iterator[None]:
        """Keeps a light load on both replicas while the body runs."""
        assert self._users is not None  # noqa: S101 - there are replicas
        users, stop = self._users, threading.Event()

        def run(seed: int, url: str) -> None:
            while not stop.is_set():
                seed += len(replicas)
                drive_now(url, users.arrivals(RATE, _PIECE_S, seed), connections=8, warmup_s=0.0)

        with ThreadPoolExecutor(len(replicas)) as threads:
            running = [threads.submit(run, n, one.url) for n, one in enumerate(replicas)]
            try:
                yield
            finally:
                stop.set()
            for one in running:
                one.result()
