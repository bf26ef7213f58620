"""The routes of operators. The token's name is the actor in the audit; without tokens none of this exists."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service import responses as out
from service.openapi import answers, takes
from service.routes import DirectRoute
from service.runtime import reply, runtime, secret_of
from service.schemas import FallbackRequest, parse

router = APIRouter(prefix="/ops", tags=["ops"], route_class=DirectRoute)

_PROBLEMS = (401, 403, 404)


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


@router.get("/policies", responses=answers(out.PoliciesAnswer, *_PROBLEMS))
async def get_policies(request: Request) -> Response:
    """The decoding policies in force."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, service.policies.current.model_dump(mode="json", exclude_none=True))


@router.get("/audit", responses=answers(out.AuditAnswer, 422, *_PROBLEMS))
async def get_audit(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """Who changed what, when and why; newest first."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, {"entries": await service.mode.audit(limit)})
