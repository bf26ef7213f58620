"""The routes of lists beyond one for one user. Each parses the request, calls a part of the service and shapes it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers, takes
from service.api.problems import problem_body
from service.api.request import admitted, body_of, call_of, counted, reply, runtime, secret_of
from service.api.routes.frontend import FieldsQuery, PathId
from service.common.errors import ServiceError
from service.recommend.batches import Outcome, answer_batch
from service.schemas import list_answers as out
from service.schemas.item_filter import fields_of_query
from service.schemas.list_requests import BasketRequest, Batch, BatchRequest
from service.schemas.parsing import parse
from service.schemas.recommend_request import RecommendRequest

router = APIRouter(route_class=DirectRoute)


@router.post(
    "/recommend/batch",
    responses=answers(out.BatchAnswer, 400, 401, 408, 413, 422, 429),
    openapi_extra=takes(BatchRequest),
)
async def recommend_batch(request: Request) -> Response:
    """Makes up to 100 lists at once.

    Each entry is answered, or refused, as by `/recommend`, and one deadline holds for all. For the rate of a key each
    list counts as a request.
    """
    service = runtime(request)
    secret = secret_of(request)
    caller = service.access.api(secret)
    await counted(request, caller)
    batch = Batch(await body_of(request), latest_ms=service.latest_ms())
    if len(batch.entries) > 1:
        await counted(request, caller, len(batch.entries) - 1)

    def admit(entry: RecommendRequest) -> None:
        if entry.arm is not None:
            service.access.tester(secret)

    found = await answer_batch(service.space.recommender, batch.entries, call_of(request), batch.budget_ms, admit)
    return reply(request, {"answers": [_entry(*one) for one in found]})


@router.get("/items/{item_id:path}/together", responses=answers(out.TogetherAnswer, 401, 404, 422, 429))
async def together(
    request: Request, item_id: PathId, k: Annotated[int, Query(ge=1, le=100)] = 10, fields: FieldsQuery = None
) -> Response:
    """Lists the items that are most in one basket with an item. It needs neither the model nor Redis."""
    service = await admitted(request)
    return reply(request, service.space.model.together(item_id, k, fields_of_query(fields)))


@router.post(
    "/baskets/recommend",
    responses=answers(out.BasketAnswer, 400, 401, 408, 413, 422, 429),
    openapi_extra=takes(BasketRequest),
)
async def recommend_for_basket(request: Request) -> Response:
    """Recommends what goes with the items of a basket, with or without a user. Always answers within the budget."""
    service = await admitted(request)
    body = parse(BasketRequest, await body_of(request))
    return reply(request, await service.space.baskets.recommend(body, call_of(request)))


def _entry(request_id: str, outcome: Outcome) -> dict[str, object]:
    if isinstance(outcome, ServiceError):
        return {"status": outcome.status, "answer": None, "problem": problem_body(outcome, request_id)}
    return {"status": 200, "answer": outcome, "problem": None}
