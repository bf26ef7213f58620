"""What every route does with a request: check the caller, find the parts of the service, reply with JSON."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from service.access.keys import Caller, presented_secret
from service.api.json_reply import JsonReply
from service.api.runtime import Runtime
from service.common.request_context import RequestContext


def runtime(request: Request) -> Runtime:
    """Returns the parts of the service, as the space of the request has them."""
    parts: Runtime = request.scope["app"].parts
    return parts.spaces[call_of(request).space] if parts.several else parts


async def admitted(request: Request) -> Runtime:
    """Admits a request of a frontend, and returns the parts of the service.

    Raises:
        Unauthorized: Keys are configured, and the request has none of them.
        TooManyRequests: The key has used up its rate.
    """
    service = runtime(request)
    caller = service.access.api(secret_of(request))
    if caller is not None:
        await counted(request, caller)
    return service


async def counted(request: Request, caller: Caller | None, lists: int = 1) -> None:
    """Logs the caller's name, and counts the request, or its lists, if keys have a rate.

    Raises:
        TooManyRequests: The key has used up its rate.
    """
    if caller is None:
        return
    call = call_of(request)
    call.facts["caller"] = caller.name
    call.caller = f"key:{caller.name}"
    rates = runtime(request).space.rates
    if rates is not None:
        await rates.take(caller, lists)


def call_of(request: Request) -> RequestContext:
    """Returns the request's id, times and log facts."""
    call: RequestContext = request.scope["state"]["call"]
    return call


def below_prefix(request: Request, path: str) -> str:
    """Returns the address of a path of this service, below the prefix under which the caller reaches it."""
    return f"{call_of(request).prefix}{path}"


def secret_of(request: Request) -> str | None:
    """Returns the key or token that the request presents, None if it has none."""
    headers = call_of(request).headers
    return presented_secret(_text(headers.get(b"authorization")), _text(headers.get(b"x-api-key")))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


async def body_of(request: Request) -> bytes:
    """Returns the body of a request. Nearly all bodies are here in one piece before anybody asks for them.

    Raises:
        ClientDisconnect: The client left before its body arrived.
    """
    parts = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def reply(request: Request, body: dict[str, Any], status: int = 200) -> Response:
    """Returns a JSON answer, with the request's id added.

    Args:
        request: The request.
        body: The answer.
        status: Its HTTP status.
    """
    body.setdefault("request_id", call_of(request).request_id)
    with runtime(request).metrics.stage("serialize"):
        content = orjson.dumps(body)
    return JsonReply(content, status)
