"""HTTP servers other than uvicorn, one process each (`GPT4REC_HTTP_SERVER`).

They call the same application, and requests, answers and the stop of the process are the same. What the connections of
`service.api.connection` bound is left to the server: how long a request may take to arrive and an answer to be read,
what all clients together may make the process hold, and which bytes are refused that another server could read in
another way. So they are for networks whose clients are known.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, cast

import uvloop
from fastapi import FastAPI

from service.api.listeners import BACKLOG
from service.common.errors import SettingsError, StartupError
from service.process.process_end import end_within
from service.process.settled_heap import settle_heap
from service.settings.service_settings import Settings

_LOOK_S = 0.01

# Serves the application on the socket until the future is done.
Run = Callable[[FastAPI, socket.socket, Settings, "asyncio.Future[None]"], Awaitable[None]]


def require(settings: Settings) -> None:
    """Refuses what the server of the settings cannot do.

    Raises:
        SettingsError: It is not installed, or there are several workers.
    """
    name = settings.http_server
    if find_spec(name) is None:
        raise SettingsError(f"GPT4REC_HTTP_SERVER: {name} is not installed; pip install 'gpt4rec[servers]'")
    if settings.workers > 1:
        raise SettingsError(f"GPT4REC_HTTP_SERVER: {name} serves with one worker, and GPT4REC_WORKERS is above 1")


def serve(
    app: FastAPI, settings: Settings, sock: socket.socket, announce: Callable[[int], None], longest_stop_s: float
) -> None:
    """Serves until a signal to stop.

    Args:
        app: The application.
        settings: Of the service.
        sock: A bound socket.
        announce: Called with the port once requests are accepted.
        longest_stop_s: After so many seconds the process is ended by force.

    Raises:
        SettingsError: The server cannot serve with these settings.
        StartupError: The service did not start; the message names the cause.
    """
    require(settings)
    port = sock.getsockname()[1]
    with contextlib.suppress(SystemExit):
        uvloop.run(_served(app, settings, sock, lambda: announce(port), longest_stop_s))
    if not app.state.process_state.started:
        raise getattr(app.state, "startup_error", StartupError("the service did not start; see the log"))


async def _served(
    app: FastAPI, settings: Settings, sock: socket.socket, announce: Callable[[], None], longest_stop_s: float
) -> None:
    loop, process_state = asyncio.get_running_loop(), app.state.process_state
    address = sock.getsockname()[:2]
    ends = loop.create_future()

    def stop() -> None:
        """Makes /readyz fail, and stops after the delay of the settings; a second signal changes nothing."""
        if not process_state.draining:
            end_within(longest_stop_s)
            process_state.draining = True
            loop.call_later(settings.shutdown_delay_s, ends.set_result, None)

    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(sig) is not signal.SIG_IGN:
            loop.add_signal_handler(sig, stop)
    serving = loop.create_task(cast("Any", _RUNS[settings.http_server](app, sock, settings, ends)))
    while not serving.done() and not await _listens(process_state, address):
        await asyncio.wait((serving,), timeout=_LOOK_S)
    if not serving.done():
        settle_heap()
        announce()
    with contextlib.suppress(StartupError):
        await serving


async def _listens(process_state: Any, address: tuple[str, int]) -> bool:
    """Whether the service has started, and its socket accepts connections."""
    if not process_state.started:
        return False
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        return True
    return False


async def _granian(app: FastAPI, sock: socket.socket, _: Settings, ends: asyncio.Future[None]) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    host, port = sock.getsockname()[:2]
    sock.close()  # it opens its own
    server = Server(
        app, address=host, port=port, interface=Interfaces.ASGI, http=HTTPModes.http1, websockets=False,
        backlog=BACKLOG, log_enabled=False,
    )  # fmt: skip
    ends.add_done_callback(lambda _: server.stop())  # type: ignore[no-untyped-call]
    await server.serve()


async def _hypercorn(app: FastAPI, sock: socket.socket, settings: Settings, ends: asyncio.Future[None]) -> None:
    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{sock.fileno()}"]
    config.backlog = BACKLOG
    config.alpn_protocols = ["http/1.1"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = config.shutdown_timeout = max(1.0, settings.drain_timeout_s)
    config.include_server_header = False
    config.errorlog = None
    await run(cast("Any", app), config, shutdown_trigger=lambda: asyncio.shield(ends))


_RUNS: dict[str, Run] = {"granian": _granian, "hypercorn": _hypercorn}
