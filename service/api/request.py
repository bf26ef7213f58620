"""What every route does with a request: who calls, the parts of the service, a JSON reply."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request, Response

from service.access.keys import Caller, presented_secret
from service.api.runtime import Runtime
from service.common.request_context import RequestContext


def runtime(request: Request) -> Runtime:
    found: Runtime = request.app.state.runtime
    return found


async def admitted(request: Request) -> Runtime:
    """The service, for a request of a frontend that has a key where one is needed, and is within its rate.

    Raises:
        Unauthorized, TooManyRequests.
    """
    service = runtime(request)
    await counted(request, service.access.api(secret_of(request)))
    return service


async def counted(request: Request, caller: Caller | None) -> None:
    """Notes who calls, and counts it where keys have a rate. Raises TooManyRequests."""
    if caller is None:
        return
    call_of(request).facts["caller"] = caller.name
    rates = runtime(request).rates
    if rates is not None:
        await rates.take(caller)


def call_of(request: Request) -> RequestContext:
    call: RequestContext = request.scope["state"]["call"]
    return call


def secret_of(request: Request) -> str | None:
    headers = request.headers
    return presented_secret(headers.get("authorization"), headers.get("x-api-key"))


def reply(request: Request, body: dict[str, Any], status: int = 200) -> Response:
    """JSON with the request's id in it."""
    body.setdefault("request_id", call_of(request).request_id)
    with runtime(request).metrics.stage("serialize"):
        content = orjson.dumps(body)
    return Response(content, status, media_type="application/json")
