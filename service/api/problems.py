"""Errors as problem documents (RFC 9457), the only format of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from service.common.errors import ServiceError
from service.common.printable import shortened
from service.common.request_context import RequestContext
from service.common.request_errors import InvalidRequest
from service.schemas.body_bounds import listed

MEDIA_TYPE = "application/problem+json"
# What helps with an error of the router.
_HINTS = {
    404: "nothing is at this path, which must match exactly, without a slash at the end; GET / lists what is here",
    405: "the path does not take this method; Allow names those that it takes",
}
# A detail may name what the caller sent: an id, a version, a path.
_DETAIL_MAX = 1000


def problem(error: ServiceError, request_id: str) -> Response:
    """Returns the problem document of an error."""
    return _document(
        error.status,
        error.reason,
        error.title,
        shortened(error.public_detail, _DETAIL_MAX),
        request_id,
        headers=error.headers,
        errors=error.errors,
    )


def problem_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    """Returns the content of the problem document of an error."""
    detail = shortened(error.public_detail, _DETAIL_MAX)
    return _body(error.status, error.reason, error.title, detail, request_id, error.errors)


def install(app: FastAPI, *routers: APIRouter) -> None:
    """Answers every error of a route or of the framework with a problem document."""

    async def http_exception(request: Request, error: Exception) -> Response:
        """Answers 404 and 405 of the router, and bodies that the framework cannot read."""
        assert isinstance(error, HTTPException)  # noqa: S101
        phrase = HTTPStatus(error.status_code).phrase
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(request, routers))
        reason = phrase.lower().replace(" ", "_")
        detail = _HINTS.get(error.status_code, phrase)
        return _document(error.status_code, reason, phrase, detail, _call(request).request_id, headers=headers)

    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)


def _document(
    status: int,
    reason: str,
    title: str,
    detail: str,
    request_id: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Any = None,
) -> Response:
    body = _body(status, reason, title, detail, request_id, errors)
    return Response(orjson.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def _body(status: int, reason: str, title: str, detail: str, request_id: str, errors: Any) -> dict[str, Any]:
    body = {
        "type": f"urn:gpt4rec:problem:{reason}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    return body if errors is None else {**body, "errors": errors}


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101 - registered for it
    _call(request).facts.setdefault("reason", error.reason)
    return problem(error, _call(request).request_id)


def _methods(request: Request, routers: Sequence[APIRouter]) -> list[str]:
    """Returns every method of the path; the framework names only those of the first route that matches."""
    found: set[str] = set()
    for router in routers:
        for route in router.routes:
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
                found |= route.methods or set()
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


async def _validation_error(request: Request, error: Exception) -> Response:
    """Answers bad path and query parameters; bodies are checked by `schemas.parse`."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return problem(InvalidRequest("the request is not valid", listed(error.errors())), _call(request).request_id)


def _call(request: Request) -> RequestContext:
    call: RequestContext = request.scope["state"]["call"]
    return call
