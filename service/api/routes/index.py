"""`/`: what is here, for whoever opens the address of the service."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers
from service.api.request import below_prefix, reply, runtime
from service.schemas.service_answers import IndexAnswer

router = APIRouter(route_class=DirectRoute)


@router.get("/", responses=answers(IndexAnswer))
async def index(request: Request) -> Response:
    """Lists what is here: the API, its documents, the pages and the probes. Links begin with the path prefix."""
    service = runtime(request)
    settings = service.settings
    documents = {"docs": "/docs", "openapi": "/openapi.json"} if settings.openapi_pages else {}
    pages = {
        **({"console": "/ops"} if service.access.has_operators else {}),
        **({"playground": "/playground"} if settings.playground else {}),
    }
    always = {"recommend": "/recommend", "events": "/events"}
    probes = {"health": "/healthz", "ready": "/readyz", "version": "/version", "metrics": "/metrics"}
    links = {name: below_prefix(request, path) for name, path in (always | documents | pages | probes).items()}
    body: dict[str, Any] = {
        "name": request.app.title,
        "version": request.app.version,
        "description": request.app.description,
        "links": links,
    }
    return reply(request, body)
