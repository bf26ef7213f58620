"""Faults of clients: what some may do to the service while others are served."""

from __future__ import annotations

import gc
import resource
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

import numpy as np
import orjson

from loadtests.chaos.flood import HICCUPS, Flood
from loadtests.chaos.scene import Fault, Scene, SceneError
from loadtests.common.meanwhile import meanwhile
from loadtests.load import open_loop_driver
from service.artifact.artifact import Artifact

T = TypeVar("T")

IDLE = 10_000
_SPARE_FILES = 500
_SLOW, _PATIENCE_S = 300, 2.0
_HOLD_S, _LAST_S = 6.0, 10.0
_HELD, _HELD_BYTES = 400, 1_000_000
# What the service may hold of requests that are on their way (`receiving_mib`), and what the allocator keeps of others.
_HELD_MIB = 64.0 + 32.0
_FLOOD_BATCHES, _FLOOD_EVENTS, _FLOOD_LISTS = 20.0, 100, 50.0
_HEAD = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n"
_SIMILAR = b"GET /items/%s/similar?k=100 HTTP/1.1\r\nHost: localhost\r\n\r\n"
_READERS, _ASKED = 40, 50
_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _connect(url: str) -> socket.socket:
    to = open_loop_driver.target(url)
    return socket.create_connection((to.host, to.port), timeout=10.0)


def _ended(connection: socket.socket) -> bool:
    """Returns whether the service has closed the connection; reads pending data."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _trickling(connections: list[socket.socket], piece: bytes) -> Iterator[None]:
    """Sends a piece from time to time on each connection."""

    def trickle(over: threading.Event) -> None:
        while not over.wait(0.25):
            for connection in connections:
                with suppress(OSError):
                    connection.send(piece)

    with meanwhile(trickle):
        yield


def slow_senders(scene: Scene, head: bytes, piece: bytes) -> None:
    """Opens connections that send heads or bodies very slowly."""
    service = scene.serve(GPT4REC_CLIENT_TIMEOUT_S=str(_PATIENCE_S))
    with scene.load(service.url), ExitStack() as stack, scene.fault(reasons=HICCUPS):
        clients = [stack.enter_context(_connect(service.url)) for _ in range(_SLOW)]
        for client in clients:
            client.sendall(head)
        with _trickling(clients, piece):
            _until_ended(scene, clients)


def held_bodies(scene: Scene) -> None:
    """Opens connections that send all of a large body but its last byte."""
    service = scene.serve()
    part = _HEAD.replace(b"9999", b"%d" % _HELD_BYTES) + b"\r\n" + b" " * (_HELD_BYTES - 1)
    with scene.load(service.url), ExitStack() as stack, scene.fault(reasons=HICCUPS):
        before = peak = service.rss_mib()
        for _ in range(_HELD // 4 if scene.quick else _HELD):
            client = stack.enter_context(_connect(service.url))
            with suppress(OSError):  # ended to make room for others
                client.sendall(part)
            time.sleep(0.02)  # their number is the fault, not their rate
            peak = max(peak, service.rss_mib())
        scene.hold(_HOLD_S)
        peak = max(peak, service.rss_mib())
    scene.promise(peak - before <= _HELD_MIB, f"the memory grew by {peak - before:.0f} MiB")
    scene.notes.append(f"the memory grew by {peak - before:.0f} MiB")


def slow_readers(scene: Scene) -> None:
    """Asks for long answers that are cheap to make, so that the reading and not the work is tested."""
    service = scene.serve(GPT4REC_CLIENT_TIMEOUT_S=str(_PATIENCE_S))
    request = _SIMILAR % Artifact.open(scene.artifact).catalogue.item_ids[0].encode()
    to = open_loop_driver.target(service.url)
    with scene.load(service.url), ExitStack() as stack, scene.fault(reasons=HICCUPS):
        for _ in range(_READERS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10.0)
            client.connect((to.host, to.port))
            client.sendall(request * _ASKED)
            scene.hold(_HOLD_S / _READERS)
        scene.hold(_HOLD_S)


def _until_ended(scene: Scene, clients: list[socket.socket]) -> None:
    """Checks that all connections are closed within the time that a client may take."""
    began, open_ = time.perf_counter(), list(clients)
    while open_ and time.perf_counter() - began < _PATIENCE_S + _LAST_S:
        time.sleep(0.1)
        open_ = [client for client in open_ if not _ended(client)]
    scene.promise(not open_, f"{len(open_)} of {len(clients)} connections are still held")
    scene.notes.append(f"{len(clients)} connections, the last ended after {time.perf_counter() - began:.1f} s")


def idle(scene: Scene) -> None:
    """Opens many connections that send nothing."""
    count = IDLE // 10 if scene.quick else IDLE
    _allow_files(count + _SPARE_FILES)
    service = scene.serve()
    to, before = open_loop_driver.target(service.url), service.rss_mib()
    with scene.load(service.url), ExitStack() as stack, scene.fault(reasons=HICCUPS):
        # Their number would lengthen the pauses of the generator's own collector.
        gc.disable()
        stack.callback(gc.enable)
        address = (to.host, to.port)
        clients = [stack.enter_context(socket.create_connection(address, 10.0)) for _ in _paced(range(count))]
        scene.hold(_HOLD_S)
        held = sum(not _ended(client) for client in _paced(clients))
        scene.promise(held == count, f"{count - held} of {count} connections were ended")
        for client in clients[:: count // 100]:
            client.setblocking(True)
            client.settimeout(10.0)
            client.sendall(_HEALTH)
            scene.promise(client.recv(64).startswith(b"HTTP/1.1 200"), "an idle connection was not served")
        scene.notes.append(f"{count} connections take {(service.rss_mib() - before) / count * 1024:.1f} KiB each")
        for client in _paced(clients):
            client.close()


def _paced(many: Iterable[T]) -> Iterator[T]:
    """Opens 2,000 connections a second: a burst of connects would be another fault than the open connections."""
    for number, one in enumerate(many):
        yield one
        if number % 20 == 19:
            time.sleep(0.01)


def _allow_files(wanted: int) -> None:
    """Raises the limit of the generator; the service raises its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise SceneError(f"{wanted} open files are needed, but the system allows {hard}: raise `ulimit -n`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def flood(scene: Scene) -> None:
    """Runs in a process of its own, so that the generator of the load does not wait with it."""
    # With the history cap of the product, which is what bounds such a user. The others have few events.
    service = scene.serve(GPT4REC_HISTORY_CAP="")
    items = list(Artifact.open(scene.artifact).catalogue.item_ids)
    seconds = _HOLD_S / 4 if scene.quick else _HOLD_S
    with scene.load(service.url, stamped=True), scene.fault(reasons=HICCUPS):
        answered = Flood(service.url, _flood, items, seconds).run()
    scene.notes.append(f"of the flood: {answered}")
    scene.promise("errors {}" in answered, "the flood itself was not answered")


def _flood(items: list[str], seconds: float) -> list[open_loop_driver.Arrival]:
    """Thousands of events and dozens of lists of one user."""
    rng, start_ms = np.random.default_rng(0), int(time.time() * 1000) - 3_600_000
    arrivals = [open_loop_driver.Arrival(due, "/recommend", orjson.dumps({"user_id": "flood", "k": 10}))
                for due in open_loop_driver.poisson(rng, _FLOOD_LISTS, seconds)]  # fmt: skip
    for number, due in enumerate(open_loop_driver.poisson(rng, _FLOOD_BATCHES, seconds)):
        events = [
            {"user_id": "flood", "item_id": items[int(rng.integers(len(items)))], "type": "click",
             "timestamp": start_ms + number * _FLOOD_EVENTS + n, "event_id": f"flood-{number}-{n}"}
            for n in range(_FLOOD_EVENTS)
        ]  # fmt: skip
        arrivals.append(open_loop_driver.Arrival(due, "/events", orjson.dumps({"events": events})))
    return sorted(arrivals, key=lambda one: one.due_s)


_HARMLESS = "others are served as if nothing were"

FAULTS = (
    Fault("clients slow heads", "client", f"{_SLOW} connections send the head of a request, a line now and then",
          f"{_HARMLESS}; each is ended with 408 in the time a client may take",
          lambda scene: slow_senders(scene, _HEAD, b"X-A: b\r\n")),
    Fault("clients slow bodies", "client", f"{_SLOW} connections send the body of a request, a byte now and then",
          f"{_HARMLESS}; each is ended with 408 in the time a client may take",
          lambda scene: slow_senders(scene, _HEAD + b"\r\n", b" ")),
    Fault("clients bodies held open", "client", f"{_HELD} connections send all of a body of 1 MB but its last byte",
          f"{_HARMLESS}; the memory grows by less than {_HELD_MIB:.0f} MiB", held_bodies),
    Fault("clients slow readers", "client", f"{_READERS} connections ask for {_ASKED} long answers each, and read none",
          _HARMLESS, slow_readers),
    Fault("clients idle", "client", f"{IDLE:,} idle connections", f"{_HARMLESS}; so are these, when they ask", idle),
    Fault("flood for one user", "client", f"{_FLOOD_BATCHES * _FLOOD_EVENTS:,.0f} events and {_FLOOD_LISTS:.0f} lists "
          "a second of one user, for 6 s", _HARMLESS, flood),
)  # fmt: skip
