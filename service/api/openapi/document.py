"""Parts of the OpenAPI document that the signatures of the routes do not give: bodies, links, security."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from types import UnionType
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.openapi.deprecated import mark
from service.api.openapi.examples import add_examples
from service.api.openapi.operations import describe, operations
from service.api.openapi.schemas import REF, for_generators
from service.api.problems import MEDIA_TYPE
from service.schemas.answer import Problem
from service.schemas.deprecations import Deprecations
from service.schemas.request_bodies import REQUEST_BODIES

_SCHEMES: dict[str, dict[str, str]] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A key of GPT4REC_API_KEYS."},
    "ApiKeyBearer": {"type": "http", "scheme": "bearer", "description": "The same key, as a bearer token."},
    "MetricsToken": {"type": "http", "scheme": "bearer", "description": "A token of GPT4REC_METRICS_TOKENS."},
    "OpsToken": {"type": "http", "scheme": "bearer", "description": "A token of GPT4REC_OPS_TOKENS."},
}
# Any one of them is enough. `service.access.keys` decides who may do what.
_KEYS = ("ApiKey", "ApiKeyBearer", "OpsToken")
_OPERATORS = ("OpsToken",)
_ANY = (414, 431, 500, 503)
_MEANING = {
    400: "The body is not JSON.",
    401: "A key or token is missing or unknown.",
    403: "The key lacks the right, or no key with the right is configured.",
    404: "Not found.",
    408: "The body took too long to arrive.",
    409: "Not possible in the present state; `detail` says why.",
    410: "The cursor has expired, or its user was erased; ask again without it.",
    413: "The body is too large.",
    414: "The path and query are too long.",
    415: "The body has a content encoding, such as gzip; send it without.",
    422: "The request is not valid; `errors` says where.",
    429: "The rate of the API key is used up; see Retry-After.",
    431: "Too many headers, or too large ones.",
    500: "An error in the service.",
    503: "Not possible right now; see Retry-After.",
}


_USER_OF_EVENTS = "$request.body#/events/0/user_id"
# By path: the name of each link, and the path, method, and parameters or body of its target.
_LINKS: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "/events": {
        "history": ("/users/{user_id}", "get", {"user_id": _USER_OF_EVENTS}),
        "recommendations": ("/recommend", "post", {"user_id": _USER_OF_EVENTS}),
        "erasure": ("/users/{user_id}", "delete", {"user_id": _USER_OF_EVENTS}),
    },
    "/recommend": {
        "similar": ("/items/{item_id}/similar", "get", {"item_id": "$response.body#/items/0/item_id"}),
    },
    "/sessions/merge": {
        "history": ("/users/{user_id}", "get", {"user_id": "$request.body#/user_id"}),
    },
}


def takes(body: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Returns `openapi_extra` of a route that reads its own body.

    Args:
        body: The schema of the body.
        required: Whether the body may be left out.
    """
    schema = {"$ref": REF.format(model=body.__name__)}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def guarded(
    path: str, *, keys_needed: bool, metrics_guarded: bool = False, method: str = "get"
) -> list[dict[str, list[str]]]:
    """Returns the `security` of a path; empty for an open one.

    Args:
        path: The path of the route.
        keys_needed: Whether the routes of frontends require a key.
        metrics_guarded: Whether /metrics requires a token.
        method: The method of the operation.
    """
    if path.startswith("/ops"):
        return [{name: []} for name in _OPERATORS]
    if path == "/metrics" and metrics_guarded:
        return [{name: []} for name in ("MetricsToken", *_OPERATORS)]
    if (
        path.startswith("/users")
        or (path.startswith("/items") and method != "get")
        or path.endswith("/features")
        or (
            keys_needed
            and path.startswith(("/recommend", "/baskets", "/events", "/sessions", "/items", "/playground/"))
        )
    ):
        return [{name: []} for name in _KEYS]
    return []


def answers(model: type[BaseModel] | UnionType, *problems: int) -> dict[int | str, dict[str, Any]]:
    """Returns `responses` of a route.

    Args:
        model: The schema of the answer, or of each one.
        problems: The statuses of its problem documents; those that every route may answer with are added.
    """
    # What can be too large can also be encoded.
    encoded = (415,) if 413 in problems else ()
    return {200: {"model": model, "description": "The answer."}, **problems_of(*problems, *encoded, *_ANY)}


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns `responses` for problem documents of these statuses."""
    schema = {"$ref": REF.format(model=Problem.__name__)}
    return {
        status: {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted(set(statuses))
    }


def install(app: FastAPI, *, keys_needed: bool, metrics_guarded: bool, deprecations: Deprecations) -> None:
    """Completes the OpenAPI document of an application: what generators of clients and readers need beside the routes.

    Args:
        app: The application.
        keys_needed: Whether the routes of frontends require a key. It does not change while the service runs.
        metrics_guarded: Whether /metrics requires a token. It does not change either.
        deprecations: What is deprecated.
    """
    generate, once = app.openapi, Lock()

    def openapi() -> dict[str, Any]:
        with once:  # it is asked for on other threads than that of the event loop
            if app.openapi_schema is None:
                app.openapi_schema = made()
            return app.openapi_schema

    def made() -> dict[str, Any]:
        document = generate()
        app.openapi_schema = None  # until it is complete
        components = document.setdefault("components", {})
        components["schemas"] = {
            **components.get("schemas", {}),
            **_definitions([*REQUEST_BODIES, Problem]),
        }
        components["securitySchemes"] = _SCHEMES
        describe(document, app.routes)
        mark(document, deprecations)
        components["schemas"] = for_generators(components["schemas"])
        for path, method, operation in operations(document):
            _link(document, path, operation)
            operation["security"] = guarded(
                path, keys_needed=keys_needed, metrics_guarded=metrics_guarded, method=method
            )
        add_examples(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _link(document: dict[str, Any], path: str, operation: dict[str, Any]) -> None:
    """Adds the operations that can be called with values of this one."""
    links = {
        name: {
            "operationId": document["paths"][target][method]["operationId"],
            **({"parameters": taken} if method in ("get", "delete") else {"requestBody": taken}),
        }
        for name, (target, method, taken) in _LINKS.get(path, {}).items()
    }
    if links:
        operation["responses"]["200"]["links"] = links


def _definitions(models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    found: dict[str, Any] = definitions["$defs"]
    return found
