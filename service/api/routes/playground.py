"""The routes of the playground, a page to try out recommendations. A setting switches them on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api import static_pages
from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers, takes
from service.api.request import admitted, below_prefix, call_of, reply, secret_of
from service.api.runtime import Runtime
from service.common.request_errors import NotFound
from service.playground.explorer import Explorer
from service.recommend.side_by_side import side_by_side
from service.schemas.parsing import parse
from service.schemas.playground_answers import FoundAnswer, ListsAnswer, PlaygroundAnswer, WhyAnswer
from service.schemas.playground_requests import ListsRequest, WhyRequest
from service.schemas.values import Id

router = APIRouter(prefix="/playground", tags=["playground"], route_class=DirectRoute)

IDS_MAX = 250
_PROBLEMS = (401, 404, 422, 429)


@router.get("", responses={200: {"content": {"text/html": {}}, "description": "The page."}})
async def page(request: Request) -> Response:
    """Returns the page. It asks for an API key itself if one is required."""
    return static_pages.page("playground", request)


@router.get("/about", responses=answers(PlaygroundAnswer, *_PROBLEMS))
async def about(request: Request) -> Response:
    """Lists the choices of the page: segments, categories, scenes, features, event types; and the budget."""
    service, explorer = await _allowed(request)
    settings = service.settings
    pages_on = {"API": ("/docs", settings.openapi_pages), "console": ("/ops", bool(service.access.has_operators))}
    here = {
        "links": {name: below_prefix(request, path) for name, (path, on) in pages_on.items() if on},
        "budget_ms": settings.deadline_ms,
        "budget_max_ms": settings.deadline_max_ms,
        "space": service.name,
        "spaces": service.choices(secret_of(request)),
    }
    return reply(request, {**await explorer.about(service.space.policies.current), **here})


@router.get("/items", responses=answers(FoundAnswer, *_PROBLEMS))
async def items(
    request: Request,
    q: Annotated[str, Query(max_length=128, description="Words of the title, or an id. Empty: popular items.")] = "",
    limit: Annotated[int, Query(ge=1, le=50)] = 12,
    item_id: Annotated[
        list[Id], Query(max_length=IDS_MAX, description="Return these items instead; unknown ids are left out.")
    ] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Finds items by title or id. Where no title has the words, typos count."""
    service, explorer = await _allowed(request)
    if item_id:
        return reply(request, await explorer.named(item_id))
    found = await explorer.items(q, limit)
    if not found["items"] and q.strip():
        near = await service.space.items.search.find(q, service.space.model, limit)
        found = await explorer.named(near)
    return reply(request, found)


@router.get("/sample", responses=answers(FoundAnswer, *_PROBLEMS))
async def sample(request: Request, seed: Annotated[int, Query(ge=0, le=2**53)] = 0) -> Response:
    """Returns an example history: a walk from a popular item over its neighbours. A seed always gives the same one."""
    _, explorer = await _allowed(request)
    return reply(request, await explorer.sample(seed))


@router.post(
    "/lists", responses=answers(ListsAnswer, 400, 403, 408, 413, *_PROBLEMS), openapi_extra=takes(ListsRequest)
)
async def lists(request: Request) -> Response:
    """Makes a list, with everything that the page shows beside it, and a second one to compare it with.

    The lists are those of `/recommend`. `items` describes what is in them and in the events of the request. `why` is
    the answer of `/playground/why`, if the first list comes from the model and is of these events alone.
    """
    service, explorer = await _allowed(request)
    body = parse(ListsRequest, await request.body(), latest_ms=service.latest_ms())
    asked = body.request
    if asked.arm is not None:
        service.access.tester(secret_of(request))
    found = await side_by_side(service.space.recommender, asked, body.beside, call_of(request))
    ids = [event.item_id for event in asked.events] + [item["item_id"] for answer in found for item in answer["items"]]
    named = await explorer.named(list(dict.fromkeys(ids)))
    why = None
    if found[0]["source"] == "gpt4rec" and asked.events and asked.user_id is None and asked.session_id is None:
        why = await explorer.why_if_able(asked.events, asked.features or {}, service.now_ms())
    return reply(request, {"lists": found, "items": named["items"], "why": why})


@router.post("/why", responses=answers(WhyAnswer, 400, 408, 413, *_PROBLEMS), openapi_extra=takes(WhyRequest))
async def why(request: Request) -> Response:
    """Explains a list: the share of each event, and of the start of the history, in the state it is decoded from.

    The shares sum to 1 with `earlier`, that of all events before them. `method` says what they are: attention, or the
    gradient of the state by each event.
    """
    service, explorer = await _allowed(request)
    body = parse(WhyRequest, await request.body(), latest_ms=service.latest_ms())
    return reply(request, await explorer.why(body.events, body.features or {}, service.now_ms()))


async def _allowed(request: Request) -> tuple[Runtime, Explorer]:
    """Admits the request, as `admitted` does; raises NotFound if the playground is off."""
    service = await admitted(request)
    if service.space.explorer is None:
        raise NotFound("the playground is off")
    return service, service.space.explorer
