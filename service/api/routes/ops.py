"""The routes of operators. The token's name is the actor in the audit; without tokens none of this exists."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api import static_pages
from service.api.direct_route import DirectRoute
from service.api.openapi import answers, takes
from service.api.request import reply, runtime, secret_of
from service.common.errors import NotFound
from service.ops.console import SERIES_S, EventStream
from service.schemas import responses as out
from service.schemas.requests import FallbackRequest, parse

router = APIRouter(prefix="/ops", tags=["ops"], route_class=DirectRoute)

_PROBLEMS = (401, 403, 404)


@router.get("", include_in_schema=False)
async def page(request: Request) -> Response:
    """The console. It asks for the token itself: there is nothing in the page."""
    if not runtime(request).access.ops_tokens:
        raise NotFound("no ops token is configured, so /ops is off")
    return static_pages.page("console", request)


@router.get("/status", responses=answers(out.StatusAnswer, 422, *_PROBLEMS))
async def status(request: Request, series_s: Annotated[int, Query(ge=0, le=SERIES_S)] = 0) -> Response:
    """What the console shows: traffic, latency, breaker, budgets, queue, caches and mode, of all workers together; and
    the last `series_s` seconds one by one."""
    service, secret = runtime(request), secret_of(request)
    service.access.ops(secret)
    return reply(request, await service.console.status(_host(request), secret, series_s=series_s))


@router.get("/stream", include_in_schema=False)
async def stream(request: Request) -> Response:
    """`/ops/status` a second as server-sent events, until the token is withdrawn or the process stops."""
    service, secret = runtime(request), secret_of(request)
    service.access.ops(secret)
    service.console.admit()
    return EventStream(service.console, service.console.stream(_host(request), secret))


@router.get("/figures", include_in_schema=False)
async def figures(request: Request, since: Annotated[int, Query(ge=0)] = 0) -> Response:
    """What one worker tells another: its state, and its seconds after `since`."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, service.console.figures(since))


@router.get("/fallback", responses=answers(out.FallbackAnswer, *_PROBLEMS))
async def get_fallback(request: Request) -> Response:
    """The mode in force and whether every replica has it (`shared`), the breaker and the budgets."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, service.fallback_status())


@router.put(
    "/fallback",
    responses=answers(out.FallbackAnswer, 400, 413, 422, *_PROBLEMS),
    openapi_extra=takes(FallbackRequest),
)
async def put_fallback(request: Request) -> Response:
    """Forces a mode on every replica, or gives the choice back with `auto`; with Redis away (`shared` is false) on this
    one, and on the others when Redis is back."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(FallbackRequest, await request.body())
    await service.mode.set(body.mode, reason=body.reason, actor=actor, expires_in_s=body.expires_in_s)
    return reply(request, service.fallback_status())


@router.get("/audit", responses=answers(out.AuditAnswer, 422, *_PROBLEMS))
async def get_audit(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """Who changed what, when and why; newest first."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, {"entries": await service.mode.audit(limit)})


def _host(request: Request) -> str:
    """Where the workers of this process listen."""
    host: str = request.scope["server"][0]
    return host
