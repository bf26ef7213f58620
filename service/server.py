"""uvicorn around the application: listens once everything is warm, announces the port, drains before it stops.

The settings may name another server (`service.api.other_servers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from service.api import other_servers
from service.api.connection import Connection
from service.api.listeners import ConnectionShare, SharedListener, allow_connections
from service.app import create_app
from service.common.atomic_files import write_aside
from service.common.errors import StartupError
from service.process.process_end import end_within
from service.process.settled_heap import settle_heap
from service.settings.service_settings import Settings

Announce = Callable[[int], None]

# How often a worker shows its supervisor that its event loop runs.
BEAT_S = 0.25
# Enough time for the event loop to accept the connections in the listener's queue.
_LAST_CONNECTIONS_S = 0.02
# What an orderly stop may take beside the settings: the embedded store writes its file.
_STOP_SPARE_S = 5.0
# How long a thread may wait for the interpreter while another computes. An engine's thread takes it again after each of
# its graphs; with Python's 5 ms a busy event loop would hold up every run several times.
_SWITCH_S = 0.0001
# Before it has started, a process has nothing to lose.
_START_STOP_S = 5.0


def longest_stop_s(settings: Settings) -> float:
    """Returns the seconds after which a process that was asked to stop is ended by force.

    They cover the delay, open requests, and states that wait to be written.
    """
    return settings.shutdown_delay_s + 2.0 * settings.drain_timeout_s + _STOP_SPARE_S


class Server(uvicorn.Server):
    """uvicorn's server. The first signal to stop makes /readyz fail while requests are still answered.

    Args:
        app: The application.
        settings: Of the service.
        announce: Called with the port once requests are accepted.
        shared: A bound socket that other workers accept from too, and the share of this one in the connections; None if
            there is none.
        beat: Called again and again while the event loop runs, from the start on.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        announce: Announce,
        shared: tuple[socket.socket, ConnectionShare] | None = None,
        beat: Callable[[], None] | None = None,
    ) -> None:
        connection = partial(Connection, patience_s=settings.client_timeout_s, unanswered=app.state.unanswered_bytes)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=cast("type[asyncio.Protocol]", connection),
            ws="none",
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
        self._delay_s, self._longest_stop_s = settings.shutdown_delay_s, longest_stop_s(settings)
        self._announce = announce
        self._shared = shared
        self._listener: SharedListener | None = None
        self._beat = beat

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens the application, then listens and announces the port."""
        self._go_on_beating()
        chatter = logging.getLogger("uvicorn.error")
        chatter.setLevel(logging.CRITICAL)
        opened = self.lifespan.startup

        async def settled() -> None:
            await opened()
            settle_heap()  # before the listener exists, so that no client waits for it

        self.lifespan.startup = settled
        await super().startup(sockets)
        chatter.setLevel(logging.NOTSET)
        if self.started and self._shared is not None:
            self._listener = SharedListener(*self._shared, self._protocol, self._connections)
            self._listener.start()
            self.servers.append(cast("asyncio.Server", self._listener))
        if self.started and sockets:
            self._announce(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops without losing a request.

        Closing a listener resets the connections it has not accepted yet, so its queue is emptied first. Open
        connections end as `Connection.shutdown` says.
        """
        for sock in (*(sockets or ()), *(self._shared[:1] if self._shared else ())):
            with contextlib.suppress(OSError):
                sock.listen(0)
        if self._listener is not None:
            self._listener.drain()
        await asyncio.sleep(_LAST_CONNECTIONS_S)
        await super().shutdown(sockets)
        # uvicorn would raise the signal again, and a clean stop would look like a death by SIGTERM.
        self._captured_signals.clear()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles SIGHUP as SIGTERM too, unless it is ignored (`nohup`): a closed terminal cuts no answer off."""
        hang_up = threading.current_thread() is threading.main_thread() and drains_at(signal.SIGHUP)
        if hang_up:
            signal.signal(signal.SIGHUP, self.handle_exit)
        try:
            with super().capture_signals():
                yield
        finally:
            if hang_up:
                signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts draining, and stops after the delay of the settings."""
        process_state = self._application.state.process_state
        if not process_state.draining:
            end_within(self._longest_stop_s if self.started else _START_STOP_S)
        if self._delay_s and not process_state.draining:
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay_s, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)
        process_state.draining = True

    def _connections(self) -> int:
        return len(self.server_state.connections)

    def _go_on_beating(self) -> None:
        if self._beat is not None:
            self._beat()
            if self._shared is not None:
                self._shared[1].tell(self._connections())
            asyncio.get_running_loop().call_later(BEAT_S, self._go_on_beating)

    def _protocol(self) -> asyncio.Protocol:
        """Returns the protocol of a new connection, as uvicorn makes it."""
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=None)


def drains_at(sig: signal.Signals) -> bool:
    """Returns whether the signal has its usual effect, and is not ignored since before the start."""
    return signal.getsignal(sig) is signal.SIG_DFL


def serve_one(settings: Settings, sockets: Sequence[socket.socket], announce: Announce) -> None:
    """Serves in this process until a signal to stop.

    Args:
        settings: Of the service.
        sockets: Bound sockets to listen on.
        announce: Called with the port once requests are accepted.

    Raises:
        StartupError: The service did not start; the message names the cause.
    """
    if settings.http_server == "uvicorn":
        serve_app(create_app(settings), settings, sockets, announce)
        return
    other_servers.require(settings)  # before the model is loaded
    allow_connections()
    other_servers.serve(create_app(settings), settings, sockets[0], announce, longest_stop_s(settings))


def serve_app(
    app: FastAPI, settings: Settings, sockets: Sequence[socket.socket], announce: Announce, **more: Any
) -> None:
    """Serves an existing application; `more` goes to `Server`; otherwise as `serve_one`."""
    allow_connections()
    sys.setswitchinterval(_SWITCH_S)
    server = Server(app, settings, announce, **more)
    # uvicorn exits the process if the lifespan failed; the cause is raised below.
    with contextlib.suppress(SystemExit):
        server.run(sockets=list(sockets))
    if not server.started:
        raise getattr(app.state, "startup_error", StartupError("the service did not start; see the log"))


def write_port(path: Path, port: int) -> None:
    """Writes the bound port as one line. A reader never sees half of it.

    Raises:
        OSError: The file cannot be written.
    """
    write_aside(path, b"%d\n" % port)
