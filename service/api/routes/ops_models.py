"""Routes of operators: which model is served, and which policies. Like the mode, both hold on every replica."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.direct_route import DirectRoute
from service.api.openapi import answers, takes
from service.api.request import reply, runtime, secret_of
from service.schemas import responses as out
from service.schemas.requests import ChangeRequest, PoliciesRequest, Why, parse

router = APIRouter(prefix="/ops", tags=["ops"], route_class=DirectRoute)

Reason = Annotated[Why | None, Query(description="Kept in the audit.")]
_PROBLEMS = (401, 403, 404)
_CHANGE = (400, 409, 413, 422, *_PROBLEMS)


@router.get("/models", responses=answers(out.ModelsAnswer, *_PROBLEMS))
async def get_models(request: Request) -> Response:
    """The model in service, those that could be, and what every replica serves."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, await service.models.to_json())


@router.post(
    "/models/rollback",
    responses=answers(out.ModelsAnswer, *_CHANGE),
    openapi_extra=takes(ChangeRequest, required=False),
)
async def rollback_model(request: Request) -> Response:
    """Activates the version that was served before, on every replica."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(ChangeRequest, await request.body() or b"{}")
    await service.models.rollback(actor=actor, reason=body.reason)
    return reply(request, await service.models.to_json())


@router.post(
    "/models/{version}/activate",
    responses=answers(out.ModelsAnswer, *_CHANGE),
    openapi_extra=takes(ChangeRequest, required=False),
)
async def activate_model(request: Request, version: str) -> Response:
    """Serves this version on every replica: verified, tried and warmed up first, while the old one answers; with
    anything wrong (422) the old one stays. Served here when this is answered, elsewhere as soon as it is ready."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(ChangeRequest, await request.body() or b"{}")
    await service.models.activate(version, actor=actor, reason=body.reason)
    return reply(request, await service.models.to_json())


@router.get("/policies", responses=answers(out.PoliciesAnswer, *_PROBLEMS))
async def get_policies(request: Request) -> Response:
    """The decoding policies in force, and whether they are the file's or an operator's."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, service.policy_keeper.to_json())


@router.put(
    "/policies",
    responses=answers(out.PoliciesAnswer, 400, 413, 422, *_PROBLEMS),
    openapi_extra=takes(PoliciesRequest),
)
async def put_policies(request: Request) -> Response:
    """Decodes by these policies on every replica, instead of by the file's; with Redis away (`shared` is false) on this
    one, and on the others when Redis is back."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(PoliciesRequest, await request.body())
    await service.policy_keeper.set(body.policies(), actor=actor, reason=body.reason)
    return reply(request, service.policy_keeper.to_json())


@router.delete("/policies", responses=answers(out.PoliciesAnswer, 422, *_PROBLEMS))
async def delete_policies(request: Request, reason: Reason = None) -> Response:
    """Every replica decodes by the policies of its file again."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    await service.policy_keeper.set(None, actor=actor, reason=reason)
    return reply(request, service.policy_keeper.to_json())
