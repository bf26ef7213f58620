"""uvicorn around the application: listens once everything is warm, announces the port, drains before it stops."""

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
# Enough time for the event loop to accept the connections in the listener's queue.
_LAST_CONNECTIONS_S = 0.02


class Server(uvicorn.Server):
    """uvicorn's server. The first signal to stop makes /readyz fail while requests are still answered.

    Args:
        app: The application.
        settings: Of the service.
        announce: Called with the port once requests are accepted.
    """

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
            # Longer than load balancers keep an idle connection (usually 60 s), so that they close it.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, math.ceil(settings.drain_timeout_s)),
        )
        super().__init__(config)
        self._application = app
        self._delay_s = settings.shutdown_delay_s
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens the application, then listens and announces the port."""
        chatter = logging.getLogger("uvicorn.error")
        chatter.setLevel(logging.CRITICAL)
        opened = self.lifespan.startup

        async def settled() -> None:
            await opened()
            # Later full collections skip the objects that live as long as the process; walking them would stop all
            # answers. This collection runs before the listener exists, so that no client waits for it.
            gc.collect()
            gc.freeze()

        self.lifespan.startup = settled
        await super().startup(sockets)
        chatter.setLevel(logging.NOTSET)
        if self.started and sockets:
            self._announce(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops without losing a request.

        Closing a listener resets the connections it has not accepted yet, so its queue is emptied first. Open
        connections end as `Connection.shutdown` says.
        """
        for sock in sockets or ():
            with contextlib.suppress(OSError):
                sock.listen(0)
        await asyncio.sleep(_LAST_CONNECTIONS_S)
        await super().shutdown(sockets)
        # uvicorn would raise the signal again, and a clean stop would look like a death by SIGTERM.
        self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts draining, and stops after the delay of the settings."""
        process_state = self._application.state.process_state
        if self._delay_s and not process_state.draining:
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay_s, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)
        process_state.draining = True


def allow_connections() -> None:
    """Raises the limit of open files as far as the system allows: each connection needs one.

    The initial limit (usually 1,024) is meant for programs that use `select`; above it new connections are dropped.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # the initial limit still works
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """Returns a bound socket that does not listen yet.

    Args:
        host: The address.
        port: The port; 0 chooses a free one.
        shared: Whether other processes may bind the same port (SO_REUSEPORT).

    Raises:
        StartupError: The address is taken, or does not belong to this machine.
    """
    if port > _LAST_PORT:  # getaddrinfo would use another port
        raise StartupError(f"cannot listen on {host}:{port}: ports end at {_LAST_PORT}")
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
    """Returns a socket bound to the port that the workers share; the next ports, one for each worker, are free.

    Args:
        host: The address.
        port: The shared port; 0 chooses one.
        workers: How many ports above the shared one must be free.

    Raises:
        StartupError: One of the ports is taken; with port 0, after several tries.
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
    """Serves in this process until a signal to stop.

    Args:
        settings: Of the service.
        sockets: Bound sockets to listen on.
        announce: Called with the port once requests are accepted.

    Raises:
        StartupError: The service did not start; the message names the cause.
    """
    serve_app(create_app(settings), settings, sockets, announce)


def serve_app(app: FastAPI, settings: Settings, sockets: Sequence[socket.socket], announce: Announce) -> None:
    """Serves an existing application; otherwise as `serve_one`."""
    allow_connections()
    server = Server(app, settings, announce)
    # uvicorn exits the process if the lifespan failed; the cause is raised below.
    with contextlib.suppress(SystemExit):
        server.run(sockets=list(sockets))
    if not server.started:
        raise getattr(app.state, "startup_error", StartupError("the service did not start; see the log"))


def serve_many(settings: Settings, announce: Announce) -> None:
    """Serves in one process for each worker, all on one port (SO_REUSEPORT), each with its own engine.

    Every worker also listens on its own port above the shared one, where /metrics are its own; /metrics of the shared
    port are the sum of all workers. If one worker ends, all of them end, so that a supervisor restarts the service.

    Args:
        settings: Of the service.
        announce: Called with the shared port once every worker accepts requests.

    Raises:
        StartupError: A port is taken, the embedded server does not start, or a worker ended.
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
    """Runs a worker process."""
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
    """Ends this worker when its supervisor dies; a killed supervisor could not stop it, and it would keep the port."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        log.error("supervisor_died")
        os.kill(os.getpid(), signal.SIGTERM)


def _supervise(workers: Sequence[Any], ready: Any, announce: Callable[[], None], tend: Callable[[], None]) -> None:
    """Starts the workers, waits until one of them ends or a signal arrives, then stops all.

    `tend` is called about once a second while they run.
    """
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
    """Writes the bound port as one line. A reader never sees half of it.

    Raises:
        OSError: The file cannot be written.
    """
    write_aside(path, b"%d\n" % port)
