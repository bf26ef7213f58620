"""The routes of operators for the model and the policies. Like the mode, both are shared by every replica."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers, takes
from service.api.request import reply, runtime, secret_of
from service.schemas import ops_answers as out
from service.schemas.ops_requests import ChangeRequest, PoliciesRequest, Why
from service.schemas.parsing import parse

router = APIRouter(prefix="/ops", tags=["ops"], route_class=DirectRoute)

Reason = Annotated[Why | None, Query(description="Kept in the audit.")]
DryRun = Annotated[bool, Query(description="Say what it would do, and do nothing.")]
_PROBLEMS = (401, 403, 404)
_CHANGE = (400, 409, 413, 422, *_PROBLEMS)


@router.get("/models", responses=answers(out.ModelsAnswer, *_PROBLEMS))
async def get_models(request: Request) -> Response:
    """Lists the model in service, the models that can be activated, and what each replica serves."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, await service.space.models.to_json())


@router.post(
    "/models/rollback",
    responses=answers(out.ModelsAnswer, *_CHANGE),
    openapi_extra=takes(ChangeRequest, required=False),
)
async def rollback_model(request: Request) -> Response:
    """Activates the previous version on every replica."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(ChangeRequest, await request.body() or b"{}")
    await service.space.models.rollback(actor=actor, reason=body.reason)
    return reply(request, await service.space.models.to_json())


@router.post(
    "/models/{version}/activate",
    responses=answers(out.ModelsAnswer, *_CHANGE),
    openapi_extra=takes(ChangeRequest, required=False),
)
async def activate_model(request: Request, version: str) -> Response:
    """Activates a version on every replica.

    The new model is verified, checked and warmed up while the old one answers. If anything is wrong with it (422), the
    old one stays. This replica serves the new model when the answer arrives, the others as soon as they are ready.
    """
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(ChangeRequest, await request.body() or b"{}")
    await service.space.models.activate(version, actor=actor, reason=body.reason)
    return reply(request, await service.space.models.to_json())


@router.get("/policies", responses=answers(out.PoliciesAnswer, *_PROBLEMS))
async def get_policies(request: Request) -> Response:
    """Shows the decoding policies in force, and whether they come from the file or from an operator."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, service.space.policy_keeper.to_json())


@router.put(
    "/policies",
    responses=answers(out.PoliciesAnswer | out.PoliciesPreview, 400, 413, 422, 503, *_PROBLEMS),
    openapi_extra=takes(PoliciesRequest),
)
async def put_policies(request: Request, dry_run: DryRun = False) -> Response:
    """Replaces the policies of the file on every replica.

    With `dry_run` nothing is changed. The answer says what would change on the requests that this replica answered
    last.

    While Redis is unavailable the policies hold on this replica only (`shared` is false), and on the others once Redis
    is back.
    """
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(PoliciesRequest, await request.body())
    if dry_run:
        return reply(request, await service.space.preview.of(body.policies()))
    await service.space.policy_keeper.set(body.policies(), actor=actor, reason=body.reason)
    return reply(request, service.space.policy_keeper.to_json())


@router.delete("/policies", responses=answers(out.PoliciesAnswer, 422, *_PROBLEMS))
async def delete_policies(request: Request, reason: Reason = None) -> Response:
    """Returns every replica to the policies of its file."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    await service.space.policy_keeper.set(None, actor=actor, reason=reason)
    return reply(request, service.space.policy_keeper.to_json())
