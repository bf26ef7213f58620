"""What the OpenAPI document says beyond the signatures of the routes, which read and write bodies by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.problems import MEDIA_TYPE
from service.schemas.requests import REQUEST_BODIES
from service.schemas.responses import Problem

_REF = "#/components/schemas/{model}"
_SCHEMES: dict[str, dict[str, str]] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A key of GPT4REC_API_KEYS."},
    "ApiKeyBearer": {"type": "http", "scheme": "bearer", "description": "The same key, as a bearer token."},
    "MetricsToken": {"type": "http", "scheme": "bearer", "description": "A token of GPT4REC_METRICS_TOKENS."},
    "OpsToken": {"type": "http", "scheme": "bearer", "description": "A token of GPT4REC_OPS_TOKENS."},
}
# One of them is enough. Who may do what is decided by `service.access.keys`.
_KEYS = ("ApiKey", "ApiKeyBearer", "OpsToken")
_OPERATORS = ("OpsToken",)
_ANY = (414, 431, 500, 503)
_MEANING = {
    400: "The body is not JSON.",
    401: "A key or token is missing or unknown.",
    403: "The key may not do this, or no key that may is configured.",
    404: "There is no such thing.",
    408: "The body took too long to arrive.",
    409: "Not in the present state of things; `detail` says why.",
    413: "The body is too large.",
    414: "The path and query are too long.",
    422: "The request does not fit; `errors` says where.",
    429: "More requests than the rate of the API key; see Retry-After.",
    431: "Too many headers, or too large ones.",
    500: "A fault of the service.",
    503: "Cannot be done now; see Retry-After.",
}


_USER_OF_EVENTS = "$request.body#/events/0/user_id"
# By path: name of the link, and the path, method, and parameters or body of what it leads to.
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
    """`openapi_extra` of a route that reads its own body."""
    schema = {"$ref": _REF.format(model=body.__name__)}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def guarded(path: str, *, keys_needed: bool, metrics_guarded: bool = False) -> list[dict[str, list[str]]]:
    """The `security` of a path; empty where everybody may call it."""
    if path.startswith("/ops"):
        return [{name: []} for name in _OPERATORS]
    if path == "/metrics" and metrics_guarded:
        return [{name: []} for name in ("MetricsToken", *_OPERATORS)]
    if path.startswith("/users") or (
        keys_needed and path.startswith(("/recommend", "/events", "/sessions", "/items", "/playground/"))
    ):
        return [{name: []} for name in _KEYS]
    return []


def answers(model: type[BaseModel], *problems: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: its answer, and the problems it may answer with; those of any request always are."""
    return {200: {"model": model, "description": "The answer."}, **problems_of(*problems, *_ANY)}


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": _REF.format(model=Problem.__name__)}
    return {
        status: {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted(set(statuses))
    }


def install(app: FastAPI, *, keys_needed: bool, metrics_guarded: bool) -> None:
    """Adds the schemas that only this module refers to, and who may call what: `keys_needed` says whether the
    routes of frontends ask for a key, `metrics_guarded` whether /metrics asks for a token. Neither changes while the
    service runs."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if Problem.__name__ not in schemas:
            schemas.update(_definitions([*REQUEST_BODIES, Problem]))
            document["components"]["securitySchemes"] = _SCHEMES
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    _link(document, path, operation)
                    operation["security"] = guarded(path, keys_needed=keys_needed, metrics_guarded=metrics_guarded)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _link(document: dict[str, Any], path: str, operation: dict[str, Any]) -> None:
    """What may be called with what an operation took or gave."""
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
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    found: dict[str, Any] = definitions["$defs"]
    return found
