"""uvicorn around the application: listens only when warm, says where, drains before it stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from service.api.connection import Connection
from service.app import create_app
from service.common import logs
from service.common.atomic_files import write_aside
from service.common.errors import ServiceError, StartupError
from service.common.settings import Settings
from service.store.embedded_valkey import EmbeddedValkey

log = logs.get(__name__)

Announce = Callable[[int], None]

_PORT_TRIES = 20
_LAST_PORT = 65_535
# Enough for the event loop to accept what has connected.
_LAST_CONNECTIONS_S = 0.02


class Server(uvicorn.Server):
    """Tells the application of the first signal to stop, so that /readyz fails while it still answers."""

    def __init__(self, app: FastAPI, settings: Settings, announce: Announce) -> None:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=cast("type[asyncio.Protocol]", partial(Connection, patience_s=settings.client_timeout_s)),
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            # Longer than load balancers keep an idle connection (60 s as a rule), so that it is they who close it.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, math.ceil(settings.drain_timeout_s)),
        )
        super().__init__(config)
        self._application = app
        self._delay_s = settings.shutdown_delay_s
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        chatter = logging.getLogger("uvicorn.error")
        chatter.setLevel(logging.CRITICAL)
        opened = self.lifespan.startup

        async def settled() -> None:
            await opened()
            # What was built for good is not walked again by every full collection, which would stop all answers
            # meanwhile. This one is made before there is a listener: whoever connected would wait for it.
            gc.collect()
            gc.freeze()

        self.lifespan.startup = settled
        await super().startup(sockets)
        chatter.setLevel(logging.NOTSET)
        if self.started and sockets:
            self._announce(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cuts nothing off: closing a listener resets the connections that it has not accepted yet, so its queue is
        emptied first. Connections end after a last call (`Connection.shutdown`)."""
        for sock in sockets or ():
            with contextlib.suppress(OSError):
                sock.listen(0)
        await asyncio.sleep(_LAST_CONNECTIONS_S)
        await super().shutdown(sockets)
        # uvicorn would raise the signal once more, and a clean stop would look like a death by SIGTERM.
        self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        lifecycle = self._application.state.lifecycle
        if self._delay_s and not lifecycle.draining:
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay_s, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)
        lifecycle.draining = True


def allow_connections() -> None:
    """As many open files as the system lets this process have: each connection is one, and where none is left, new ones
    are dropped. What processes are given at first (1,024 as a rule) is meant for programs that use `select`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # less will do
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A bound socket that does not listen yet.

    Raises:
        StartupError: the address is taken or is none of this machine's.
    """
    if port > _LAST_PORT:  # getaddrinfo would take it for another one
        raise StartupError(f"cannot listen on {host}:{port}: there is no such port")
    with contextlib.ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = stack.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
        except OSError as error:
            raise StartupError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        stack.pop_all()
    return sock


def reserve(host: str, port: int, workers: int) -> socket.socket:
    """The port that workers share, bound; those above it, one for each of them, were free a moment ago.

    Raises:
        StartupError: one of them is taken; where any will do (port 0), after several tries.
    """
    for attempt in range(_PORT_TRIES):
        shared = bind(host, port, shared=True)
        try:
            for number in range(workers):
                bind(host, shared.getsockname()[1] + 1 + number, shared=False).close()
        except StartupError:
            shared.close()
            if port or attempt == _PORT_TRIES - 1:
                raise
        else:
            break
    return shared


def serve_one(settings: Settings, sockets: Sequence[socket.socket], announce: Announce) -> None:
    """Serves until a signal.

    Raises:
        StartupError: the cause, where it did not come up.
    """
    serve_app(create_app(settings), settings, sockets, announce)


def serve_app(app: FastAPI, settings: Settings, sockets: Sequence[socket.socket], announce: Announce) -> None:
    """`serve_one` for an application that is already made."""
    allow_connections()
    server = Server(app, settings, announce)
    # uvicorn exits the process where the lifespan failed; the cause is worth more than its traceback.
    with contextlib.suppress(SystemExit):
        server.run(sockets=list(sockets))
    if not server.started:
        raise getattr(app.state, "startup_error", StartupError("the service did not start; see the log"))


def serve_many(settings: Settings, announce: Announce) -> None:
    """One process for each worker, all on one port (SO_REUSEPORT), each with its own engine.

    Every worker also listens on a port of its own above the shared one, where its /metrics are its own; those of the
    shared port are all workers' together. When one worker ends, all do, and whoever supervises the service restarts it.
    """
    reserved = reserve(settings.host, settings.port, settings.workers)
    port = reserved.getsockname()[1]
    embedded = None
    if settings.redis_url.get_secret_value() == "embedded":
        embedded = EmbeddedValkey(settings.data_dir)
        settings = settings.model_copy(update={"redis_url": type(settings.redis_url)(embedded.start())})
    context = multiprocessing.get_context("spawn")
    ready = context.Semaphore(0)
    workers = [
        context.Process(target=_worker, args=(settings, port, n, ready), name=f"worker-{n}")
        for n in range(settings.workers)
    ]
    try:
        _supervise(workers, ready, lambda: announce(port), (lambda: None) if embedded is None else embedded.revive)
    finally:
        reserved.close()
        if embedded is not None:
            embedded.stop()


def _worker(settings: Settings, port: int, number: int, ready: Any) -> None:
    """Entry of a worker process."""
    logs.configure(settings.log_level)
    threading.Thread(target=_end_with_supervisor, name="supervisor-watch", daemon=True).start()
    try:
        sockets = [
            bind(settings.host, port, shared=True),
            bind(settings.host, port + 1 + number, shared=False),
        ]
        settings = settings.model_copy(update={"port": port})
        serve_one(settings, sockets, lambda _: ready.release())
    except ServiceError as error:
        log.critical("worker_failed", worker=number, cause=str(error))
        raise SystemExit(1) from None


def _end_with_supervisor() -> None:
    """A supervisor that is killed tells nobody, and workers without one would hold the port until someone ends them."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        log.error("supervisor_died")
        os.kill(os.getpid(), signal.SIGTERM)


def _supervise(workers: Sequence[Any], ready: Any, announce: Callable[[], None], tend: Callable[[], None]) -> None:
    """Starts the workers and waits for the first to end, or for a signal; then ends all. `tend` is called now and
    then in between."""
    stopping = False

    def stop(_sig: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers:
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGTERM)

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        for worker in workers:
            worker.start()
        waiting = len(workers)
        while all(worker.is_alive() for worker in workers):
            if waiting and ready.acquire(timeout=0.1):
                waiting -= 1
                if not waiting:
                    announce()
            elif not waiting:
                multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=1.0)
            tend()
        failed = not stopping
        stop(signal.SIGTERM, None)
        for worker in workers:
            worker.join()
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
    if failed:
        raise StartupError("a worker ended; see the log")


def write_port(path: Path, port: int) -> None:
    """The bound port as one line; a reader never sees half of it."""
    write_aside(path, b"%d\n" % port)
