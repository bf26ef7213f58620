"""The routes of operators. The name of the token is the actor in the audit; without tokens these routes are off."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api import static_pages
from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers, takes
from service.api.request import reply, runtime, secret_of
from service.common.errors import StoreUnavailable
from service.common.request_errors import NotFound
from service.coordination.audit_filter import AUDIT_MAX, chosen
from service.experiments.outcomes import shown, unpacked
from service.ops.console import SERIES_S, EventStream
from service.schemas import ops_answers as out
from service.schemas.ops_requests import FallbackRequest
from service.schemas.parsing import parse
from service.store.redis.redis_causes import meaning

router = APIRouter(prefix="/ops", tags=["ops"], route_class=DirectRoute)

_PROBLEMS = (401, 403, 404)


@router.get("", include_in_schema=False)
async def page(request: Request) -> Response:
    """Returns the console page. It contains no data, and asks for the token itself."""
    # The page asks for a token, which says whose space it shows: the request of a browser has none yet.
    if not any(space.access.has_operators for space in runtime(request).spaces.values()):
        raise NotFound("no ops token is configured, so /ops is off")
    return static_pages.page("console", request)


@router.get("/status", responses=answers(out.StatusAnswer, 422, *_PROBLEMS))
async def status(request: Request, series_s: Annotated[int, Query(ge=0, le=SERIES_S)] = 0) -> Response:
    """Shows what the console shows, for all workers: traffic, latency, breaker, budgets, queue, caches and mode.

    `series_s` adds the figures of each of the last seconds.
    """
    service, secret = runtime(request), secret_of(request)
    service.access.ops(secret)
    return reply(request, await service.console.status(_host(request), secret, series_s=series_s))


@router.get("/stream", include_in_schema=False)
async def stream(request: Request) -> Response:
    """Streams `/ops/status` once a second as server-sent events, until the token is withdrawn or the process stops."""
    service, secret = runtime(request), secret_of(request)
    service.access.ops(secret)
    service.console.admit()
    return EventStream(service.console, service.console.stream(_host(request), secret))


@router.get("/figures", include_in_schema=False)
async def figures(request: Request, since: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Returns what one worker reports to another: its state, and the figures of the seconds after `since`."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, service.console.figures(since))


@router.get("/spaces", responses=answers(out.SpacesAnswer, *_PROBLEMS))
async def get_spaces(request: Request) -> Response:
    """Lists the spaces that the token may operate: a token of a space its own, one of the process all of them."""
    service, secret = runtime(request), secret_of(request)
    service.access.ops(secret)
    return reply(request, {"space": service.name, "spaces": service.choices(secret)})


@router.get("/fallback", responses=answers(out.FallbackAnswer, *_PROBLEMS))
async def get_fallback(request: Request) -> Response:
    """Shows the mode in force, whether every replica has it (`shared`), the breaker and the budgets."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, service.space.fallback_status())


@router.put(
    "/fallback",
    responses=answers(out.FallbackAnswer, 400, 413, 422, *_PROBLEMS),
    openapi_extra=takes(FallbackRequest),
)
async def put_fallback(request: Request) -> Response:
    """Forces a mode on every replica; `auto` lets the service choose again.

    While Redis is unavailable the mode holds on this replica only (`shared` is false), and on the others once Redis is
    back.
    """
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(FallbackRequest, await request.body())
    await service.space.mode.set(body.mode, reason=body.reason, actor=actor, expires_in_s=body.expires_in_s)
    return reply(request, service.space.fallback_status())


@router.get("/audit", responses=answers(out.AuditAnswer, 422, *_PROBLEMS))
async def get_audit(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=AUDIT_MAX)] = 100,
    actor: Annotated[str | None, Query(max_length=128, description="Only changes by this operator.")] = None,
    action: Annotated[str | None, Query(max_length=64, description="Only changes of this kind, as `policies`.")] = None,
    q: Annotated[str, Query(max_length=128, description="Only changes whose sentence contains these words.")] = "",
) -> Response:
    """Lists who changed what, when and why; newest first. `text` is the change in a sentence.

    The filters go through the newest 1,000 entries. `actors` and `actions` are what those have, to choose from.
    """
    service = runtime(request)
    service.access.ops(secret_of(request))
    filtered = actor is not None or action is not None or q
    entries = await service.space.audit.read(AUDIT_MAX if filtered else limit)
    return reply(request, {**chosen(entries, actor=actor, action=action, words=q, limit=limit)})


@router.get("/outcomes", responses=answers(out.OutcomesAnswer, *_PROBLEMS))
async def get_outcomes(request: Request) -> Response:
    """Shows what the lists of yesterday and today (UTC) earned, by group, as `gpt4rec loop sink` counts it.

    Without a sink there are no groups. While Redis is unavailable there are none either, and `fault` says why.
    """
    service = runtime(request)
    service.access.ops(secret_of(request))
    found: dict[str, bytes] = {}
    fault = None
    try:
        found = await service.space.store.outcomes.read()
    except StoreUnavailable as error:
        fault = f"Redis cannot be used ({meaning(error.cause)})"
    return reply(request, {**shown(unpacked(found), time.time()), "fault": fault})


def _host(request: Request) -> str:
    """Returns the address on which the workers of this service listen."""
    host: str = request.scope["server"][0]
    return host
