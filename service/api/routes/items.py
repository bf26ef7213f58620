"""The routes of items.

Ids may hold slashes, and an id may end in a word that names something of an item, such as `/similar`. So the path as it
was sent decides: a slash of an id is written %2F, and only a plain word behind an id names something of the item.
`GET /items/a/similar` lists the neighbours of `a`, while `GET /items/a%2Fsimilar` shows the item `a/similar`, whose
neighbours are at `/items/a%2Fsimilar/similar`.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.routing import Match
from starlette.types import Scope

from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers, takes
from service.api.request import admitted, counted, reply, runtime, secret_of
from service.api.runtime import Runtime
from service.catalogue.shop_items import Change, Op
from service.common.errors import StoreUnavailable
from service.schemas import item_answers as out
from service.schemas.items import ItemRequest, read_line
from service.schemas.parsing import parse
from service.schemas.values import Id
from service.store.redis.redis_causes import meaning

# What a plain word at the end of a path names; see the routes of frontends.
OF_AN_ITEM = ("similar", "together", "disable", "enable")
_SLASHES = "/items/{item_id}".count("/")
_READS = (401, 404, 422, 429)
_WRITES = (400, 401, 403, 404, 408, 409, 413, 422, 429)

# As bytes: few generators of clients know a media type for JSON lines, and the route reads any.
_LINES = {
    "required": True,
    "description": "One JSON object a line, as `ItemLine` describes it, at most 10,000 lines.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}

PathId = Annotated[
    Id, Path(description="1 to 128 characters, no control characters. A slash of an id is written `%2F`.")
]
IfVersion = Annotated[
    int | None,
    Query(ge=0, le=2**53, description="Makes the change only if the item has this version; 0: if nothing is stored."),
]


class ItemRoute(DirectRoute):
    """A route whose path ends in the id of an item."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches by the path as it was sent, where the server tells it."""
        raw = scope.get("raw_path")
        path = scope["path"] if raw is None else raw.partition(b"?")[0].decode("latin-1")
        # Of the item whose id is such a word, nothing is named by it: `/items/similar`.
        if path.rpartition("/")[2] in OF_AN_ITEM and scope["path"].count("/") > _SLASHES:
            return Match.NONE, {}
        return super().matches(scope)


router = APIRouter(route_class=DirectRoute)
one = APIRouter(route_class=ItemRoute)


async def _writer(request: Request) -> tuple[Runtime, str]:
    """Admits who may change items."""
    service = runtime(request)
    actor, caller = service.access.items(secret_of(request))
    await counted(request, caller)
    return service, actor


async def _change(request: Request, item_id: str, op: Op, if_version: int | None = None) -> Response:
    service, actor = await _writer(request)
    fields = {}
    if op in ("put", "patch"):
        fields = parse(ItemRequest, await request.body()).stored(nulls=op == "patch")
    change = Change(item_id, op, fields, if_version)
    answer = await service.space.items.shop.change(change, actor)
    return reply(request, {**answer, "warnings": service.space.items.views.warnings(change)})


@router.get("/items", responses=answers(out.ItemsAnswer, 401, 422, 429))
async def list_items(
    request: Request,
    q: Annotated[
        str | None,
        Query(max_length=256, description="Words of the title; the last may be incomplete, and typos count."),
    ] = None,
    cursor: Annotated[str | None, Query(max_length=1024, description="`cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Items of a page.")] = 50,
    listed: Annotated[bool, Query(description="Shows only items that lists may have.")] = False,
) -> Response:
    """Lists the items, those that are stored over HTTP first; or those that match the words of `q`, the best first."""
    service = await admitted(request)
    views = service.space.items.views
    if q is None:
        return reply(request, views.page(cursor, limit, listed=listed))
    return reply(request, await views.search(q, limit, listed=listed))


@router.get("/ops/items/changes", tags=["ops"], responses=answers(out.ItemLogAnswer, 401, 403, 404, 422))
async def list_changes(
    request: Request,
    item_id: Annotated[Id | None, Query(description="Only changes of this item.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most entries.")] = 100,
) -> Response:
    """Lists who changed which item, and how, newest first: of the last 10,000 changes of all items.

    While Redis is unavailable there are none, and `fault` says why.
    """
    service = runtime(request)
    service.access.ops(secret_of(request))
    try:
        entries, fault = await service.space.items.views.changes(item_id, limit), None
    except StoreUnavailable as error:
        entries, fault = [], f"Redis cannot be used ({meaning(error.cause)})"
    return reply(request, {"entries": entries, "fault": fault})


@router.post(
    "/items",
    responses=answers(out.ImportAnswer, *(status for status in _WRITES if status not in (404, 409))),
    openapi_extra={"requestBody": _LINES},
)
async def import_items(request: Request) -> Response:
    """Makes many changes, one JSON object a line, and reports on each line. A bad line harms no other."""
    service, actor = await _writer(request)
    return reply(request, await service.space.items.shop.import_lines(await request.body(), read_line, actor))


@router.post("/items/{item_id:path}/disable", responses=answers(out.ItemChanged, *_WRITES))
async def disable_item(request: Request, item_id: PathId) -> Response:
    """Takes an item out of all lists, on every replica, until it is enabled: whatever its fields say."""
    return await _change(request, item_id, "disable")


@router.post("/items/{item_id:path}/enable", responses=answers(out.ItemChanged, *_WRITES))
async def enable_item(request: Request, item_id: PathId) -> Response:
    """Lets an item back into lists that was disabled."""
    return await _change(request, item_id, "enable")


@one.get("/items/{item_id:path}", responses=answers(out.ItemAnswer, *_READS))
async def show_item(request: Request, item_id: PathId) -> Response:
    """Shows an item: what is stored of it, and what lists have."""
    service = await admitted(request)
    return reply(request, await service.space.items.views.show(item_id))


@one.put("/items/{item_id:path}", responses=answers(out.ItemChanged, *_WRITES), openapi_extra=takes(ItemRequest))
async def put_item(request: Request, item_id: PathId, if_version: IfVersion = None) -> Response:
    """Stores an item in place of what was stored of it. A disabled item stays disabled."""
    return await _change(request, item_id, "put", if_version)


@one.patch("/items/{item_id:path}", responses=answers(out.ItemChanged, *_WRITES), openapi_extra=takes(ItemRequest))
async def patch_item(request: Request, item_id: PathId, if_version: IfVersion = None) -> Response:
    """Stores some fields of an item; null takes one away, so that the file's or the export's shows again."""
    return await _change(request, item_id, "patch", if_version)


@one.delete("/items/{item_id:path}", responses=answers(out.ItemChanged, *_WRITES))
async def delete_item(request: Request, item_id: PathId, if_version: IfVersion = None) -> Response:
    """Deletes what is stored of an item: what the updates file and the export say of it holds again."""
    return await _change(request, item_id, "delete", if_version)
