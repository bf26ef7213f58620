"""/metrics, /healthz and /readyz of a process that serves nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.access.keys import Access, presented_secret
from service.common.request_errors import Unauthorized

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STOP_S = 1


class _Server(uvicorn.Server):
    """uvicorn's server without its own handling of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leaves signals to the process."""
        yield


async def open_side_door(
    stack: AsyncExitStack,
    sock: socket.socket,
    access: Access,
    render: Callable[[], bytes],
    checks: Callable[[], Mapping[str, bool]],
    status: Callable[[], Mapping[str, Any]],
) -> None:
    """Answers on the socket until the stack is closed.

    Args:
        stack: Ends the server.
        sock: A bound socket.
        access: Who may read /metrics.
        render: Returns the metrics as text.
        checks: Returns what must hold for /healthz (`alive`) and for /readyz (everything).
        status: Returns more for people to read.
    """

    async def metrics(request: Request) -> Response:
        try:
            access.metrics(presented_secret(request.headers.get("authorization"), request.headers.get("x-api-key")))
        except Unauthorized as error:
            return Response(error.public_detail, error.status, error.headers)
        return Response(render(), headers={"content-type": _METRICS_TYPE})

    async def healthz(_: Request) -> Response:
        return _told(checks()["alive"])

    async def readyz(_: Request) -> Response:
        return _told(all(checks().values()))

    def _told(good: bool) -> Response:
        body = {"status": "ok" if good else "failing", "checks": dict(checks()), **status()}
        return Response(orjson.dumps(body), 200 if good else 503, media_type="application/json")

    routes = [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]
    config = uvicorn.Config(
        Starlette(routes=routes), lifespan="off", log_config=None, access_log=False, server_header=False, ws="none",
        timeout_graceful_shutdown=_STOP_S,
    )  # fmt: skip
    server = _Server(config)
    sock.listen()  # so that nobody who learns of the port is refused before the server accepts
    task = asyncio.create_task(server.serve(sockets=[sock]))

    async def close() -> None:
        server.should_exit = True
        await task

    stack.push_async_callback(close)
