"""The routes of frontends and probes. Each parses the request, calls a part of the service and shapes the answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers, problems_of, takes
from service.api.request import admitted, body_of, call_of, counted, reply, runtime, secret_of
from service.api.space_of_request import space_path
from service.metrics import text_formats as metric_text
from service.ops import worker_peers
from service.schemas.item_filter import FIELDS_PATTERN, QUERY_FIELDS_DESCRIPTION, fields_of_query
from service.schemas.list_answers import RecommendAnswer, SimilarAnswer
from service.schemas.parsing import parse
from service.schemas.recommend_request import RecommendRequest
from service.schemas.service_answers import HealthAnswer, ReadyAnswer, VersionAnswer
from service.schemas.user_answers import EraseAnswer, EventsAnswer, MergeAnswer, UserAnswer
from service.schemas.user_requests import EventsRequest, MergeRequest
from service.schemas.values import Id

router = APIRouter(route_class=DirectRoute)

PathId = Annotated[Id, Path(description="1 to 128 characters, no control characters.")]
FieldsQuery = Annotated[str | None, Query(max_length=256, pattern=FIELDS_PATTERN, description=QUERY_FIELDS_DESCRIPTION)]


@router.post(
    "/recommend",
    responses=answers(RecommendAnswer, 400, 401, 403, 408, 410, 413, 422, 429),
    openapi_extra=takes(RecommendRequest),
)
async def recommend(request: Request) -> Response:
    """Recommends the next items for a user, a session or a few events. Always answers within the budget."""
    service = await admitted(request)
    body = parse(RecommendRequest, await body_of(request), latest_ms=service.latest_ms())
    if body.arm is not None:
        service.access.tester(secret_of(request))
    return reply(request, await service.space.recommender.recommend(body, call_of(request)))


@router.post(
    "/events", responses=answers(EventsAnswer, 400, 401, 408, 413, 422, 429), openapi_extra=takes(EventsRequest)
)
async def events(request: Request) -> Response:
    """Stores a batch of events. One invalid event rejects the batch; an acknowledged batch is written."""
    service = await admitted(request)
    body = service.space.ingest.parse(await body_of(request), service.latest_ms())
    return reply(request, await service.space.ingest.append(body))


@router.post(
    "/sessions/merge",
    responses=answers(MergeAnswer, 400, 401, 408, 413, 422, 429),
    openapi_extra=takes(MergeRequest),
)
async def merge(request: Request) -> Response:
    """Moves an anonymous history to the user who logged in."""
    service = await admitted(request)
    body = parse(MergeRequest, await body_of(request))
    return reply(request, await service.space.ingest.merge(body))


@router.get("/items/{item_id:path}/similar", responses=answers(SimilarAnswer, 401, 404, 422, 429))
async def similar(
    request: Request,
    item_id: PathId,
    k: Annotated[int, Query(ge=1, le=100)] = 10,
    fields: FieldsQuery = None,
) -> Response:
    """Lists the nearest items by item-CF, items without events among them. It needs neither the model nor Redis."""
    service = await admitted(request)
    return reply(request, service.space.model.similar(item_id, k, fields_of_query(fields)))


@router.get("/users/{user_id:path}", responses=answers(UserAnswer, 401, 403, 404, 422, 429))
async def show_user(request: Request, user_id: PathId) -> Response:
    """Shows everything that is stored about a user."""
    service = runtime(request)
    await counted(request, service.access.users(secret_of(request)))
    return reply(request, await service.space.ingest.show(user_id, service.now_ms()))


@router.delete("/users/{user_id:path}", responses=answers(EraseAnswer, 401, 403, 404, 422, 429))
async def erase_user(request: Request, user_id: PathId) -> Response:
    """Deletes everything that is stored about a user."""
    service = runtime(request)
    await counted(request, service.access.users(secret_of(request)))
    return reply(request, await service.space.ingest.erase(user_id))


@router.get("/healthz", responses=answers(HealthAnswer))
async def healthz(request: Request) -> Response:
    """Liveness: answers as long as the event loop runs. `engine` is informative: without it the lower rungs answer."""
    return reply(request, {"status": "ok", "engine": runtime(request).space.model.healthy})


@router.get("/readyz", responses=answers(ReadyAnswer) | {503: {"model": ReadyAnswer}})
async def readyz(request: Request) -> Response:
    """Readiness: whether to send requests here.

    Without Redis, and while a file that the service follows hangs, the status is `degraded`, which is still ready.
    """
    service = runtime(request)
    checks = service.readiness()
    ready, redis = all(checks.values()), await service.space.redis.answers()
    files = not service.metrics.hanging_files()
    status = "not_ready" if not ready else "ready" if redis and files else "degraded"
    checks |= {"redis": redis, "files": files}
    found = {"status": status, "checks": checks, "redis_cause": service.space.redis.cause}
    return reply(request, found, 200 if ready else 503)


@router.get("/version", responses=answers(VersionAnswer))
async def version(request: Request) -> Response:
    """Shows the release, its commit and the model in service."""
    return reply(request, runtime(request).versions())


@router.get(
    "/metrics",
    responses={
        200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}, "description": "Prometheus text."},
        **problems_of(401, 503),
    },
)
async def metrics(request: Request) -> Response:
    """The metrics of this process in Prometheus text format; on a port shared by workers, those of all workers.

    Whoever accepts OpenMetrics gets that, and with it the traces of some of the latest requests, as exemplars.
    """
    service = runtime(request)
    presented = secret_of(request)
    service.access.metrics(presented)
    form = metric_text.asked(call_of(request).headers.get(b"accept"))
    host, port = request.scope["server"]
    if service.settings.workers > 1 and port == service.settings.port:
        below = space_path(service.name)
        urls = worker_peers.worker_urls(host, port, service.settings.workers, below)
        # A secret that was not required is not passed on. One may be required to reach a space.
        secret = presented if service.access.readers or below else None
        text = await service.peers.metrics(urls, secret, form)
    else:
        text = await service.metrics_text(form)
    return Response(text, headers={"content-type": form.content_type})
