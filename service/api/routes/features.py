"""The routes of stored features.

Ids may hold slashes, and a user's id may end in `/features`. So the path as it was sent decides: a slash of an id is
written %2F, and only a plain `/features` at the end names the features. `/users/a/features` are those of `a`, while
`/users/a%2Ffeatures` is the user `a/features`, and `/users/a%2Ffeatures/features` are that one's features.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.routing import Match
from starlette.types import Scope

from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers, takes
from service.api.request import counted, reply, runtime, secret_of
from service.api.runtime import Runtime
from service.schemas.parsing import parse
from service.schemas.user_answers import FeaturesAnswer, FeaturesDeletedAnswer
from service.schemas.user_requests import FeaturesRequest
from service.schemas.values import Id
from service.store.records import Kind

_END = "/features"
_NOT_FOUND = (401, 403, 404, 422, 429)
_WRITES = (400, 401, 403, 408, 413, 422, 429)

PathId = Annotated[
    Id, Path(description="1 to 128 characters, no control characters. A slash of an id is written `%2F`.")
]


class FeaturesRoute(DirectRoute):
    """A route that ends in `/features`, with a slash that is no part of an id."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches by the path as it was sent, where the server tells it."""
        raw = scope.get("raw_path")
        if raw is not None and not raw.partition(b"?")[0].endswith(_END.encode()):
            return Match.NONE, {}
        return super().matches(scope)


router = APIRouter(route_class=FeaturesRoute)


async def _allowed(request: Request) -> Runtime:
    """Admits who may read and erase users: features are personal data, and whoever writes them changes lists."""
    service = runtime(request)
    await counted(request, service.access.users(secret_of(request)))
    return service


async def _put(request: Request, kind: Kind, caller_id: str) -> Response:
    service = await _allowed(request)
    body = parse(FeaturesRequest, await request.body())
    answer = await service.space.features.put(kind, caller_id, body.features)
    await _audit(service, request, "stored" if body.features else "deleted", kind, sorted(body.features))
    return reply(request, answer)


async def _get(request: Request, kind: Kind, caller_id: str) -> Response:
    service = await _allowed(request)
    return reply(request, await service.space.features.show(kind, caller_id))


async def _delete(request: Request, kind: Kind, caller_id: str) -> Response:
    service = await _allowed(request)
    answer = await service.space.features.delete(kind, caller_id)
    await _audit(service, request, "deleted", kind, [])
    return reply(request, answer)


async def _audit(service: Runtime, request: Request, change: str, kind: Kind, names: list[str]) -> None:
    """Records what an operator did, with the names of the features.

    Neither values nor whose they are: an entry outlives an erasure.
    """
    actor = service.access.operator(secret_of(request))
    if actor is not None:
        await service.space.audit.record(actor, "features", {"change": change, "of": kind, "names": names})


@router.put(
    "/users/{user_id:path}/features",
    responses=answers(FeaturesAnswer, *_WRITES),
    openapi_extra=takes(FeaturesRequest),
)
async def put_user_features(request: Request, user_id: PathId) -> Response:
    """Stores the features of a user in place of those before. Lists use them unless a request names others."""
    return await _put(request, "user", user_id)


@router.get("/users/{user_id:path}/features", responses=answers(FeaturesAnswer, *_NOT_FOUND))
async def show_user_features(request: Request, user_id: PathId) -> Response:
    """Shows the stored features of a user."""
    return await _get(request, "user", user_id)


@router.delete("/users/{user_id:path}/features", responses=answers(FeaturesDeletedAnswer, *_NOT_FOUND))
async def delete_user_features(request: Request, user_id: PathId) -> Response:
    """Deletes the stored features of a user, and nothing else."""
    return await _delete(request, "user", user_id)


@router.put(
    "/sessions/{session_id:path}/features",
    responses=answers(FeaturesAnswer, *_WRITES),
    openapi_extra=takes(FeaturesRequest),
)
async def put_session_features(request: Request, session_id: PathId) -> Response:
    """Stores the features of an anonymous session. A merge gives the user those that the user's own do not say."""
    return await _put(request, "session", session_id)


@router.get("/sessions/{session_id:path}/features", responses=answers(FeaturesAnswer, *_NOT_FOUND))
async def show_session_features(request: Request, session_id: PathId) -> Response:
    """Shows the stored features of a session."""
    return await _get(request, "session", session_id)


@router.delete("/sessions/{session_id:path}/features", responses=answers(FeaturesDeletedAnswer, *_NOT_FOUND))
async def delete_session_features(request: Request, session_id: PathId) -> Response:
    """Deletes the stored features of a session, and nothing else."""
    return await _delete(request, "session", session_id)
