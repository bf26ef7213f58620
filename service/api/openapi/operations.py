"""What the OpenAPI document says of operations beside their bodies: ids, groups, order and headers of answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

Operation = dict[str, Any]

# The groups of the document, in its order: what frontends call comes first.
TAGS = {
    "lists": "Lists of items to show.",
    "events": "What users did.",
    "users": "What is stored about users and sessions.",
    "items": "The catalogue.",
    "service": "Whether the service runs, and which one it is.",
    "playground": "The playground, a page to try lists.",
    "ops": "Operators: modes, models, policies, experiments, audit.",
}
# By the first step of a path. Other paths are in the last group of frontends.
_TAG_OF = {
    "recommend": "lists", "baskets": "lists", "events": "events", "sessions": "events", "users": "users",
    "items": "items",
    "": "service", "healthz": "service", "readyz": "service", "version": "service", "metrics": "service",
    "playground": "playground", "ops": "ops",
}  # fmt: skip
_OTHERS = "items"
# By the last step, where it says more than the first.
_TAG_BY_END = {"similar": "lists", "together": "lists", "features": "users"}
# Functions of these groups have names that others may have too.
_PREFIXED = ("playground", "ops")

_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "Id of the request, which the log has too: the caller's, if it sent one of 1 to 128 letters, "
        "digits and `._:/+=@-`, else a new one.",
        "required": True,
        "schema": {"type": "string", "maxLength": 128},
        "example": "3f0c9a5e1b7d4c2f8a6e0d9b7c5a3f1e",
    },
    "Retry-After": {
        "description": "Seconds to wait before the request is sent again.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 1,
    },
    "WWW-Authenticate": {
        "description": "The scheme to authenticate with.",
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "Accept-Encoding": {
        "description": "The encodings of bodies that are read.",
        "schema": {"type": "string"},
        "example": "identity",
    },
    "Deprecation": {
        "description": "When something that the request used was deprecated, as in RFC 9745: `@` and epoch seconds.",
        "schema": {"type": "string", "pattern": "^@[0-9]+$"},
        "example": "@1798761600",
    },
    "Sunset": {
        "description": "When it stops working, as in RFC 8594.",
        "schema": {"type": "string"},
        "example": "Thu, 01 Jul 2027 00:00:00 GMT",
    },
}
_ALWAYS = ("X-Request-Id",)
_BY_STATUS = {
    "401": ("WWW-Authenticate",),
    "415": ("Accept-Encoding",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}
_OF_DEPRECATED = ("Deprecation", "Sunset")


def operation_id(tag: str, function: str) -> str:
    """Returns the id of an operation: the name of its function, after the group where others may have that name too."""
    return f"{tag}_{function}" if tag in _PREFIXED else function


def tag_of(path: str) -> str:
    """Returns the group of a path."""
    steps = path.strip("/").split("/")
    return _TAG_BY_END.get(steps[-1]) or _TAG_OF.get(steps[0], _OTHERS)


def describe(document: dict[str, Any], routes: Iterable[BaseRoute]) -> None:
    """Gives the operations of a document their ids, groups, order and headers.

    Args:
        document: The document, which is changed.
        routes: All routes of the application.

    Raises:
        ValueError: Two operations have one id.
    """
    names = {
        (route.path_format, method.lower()): route.name
        for route in routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    ids: dict[str, str] = {}
    for path, methods in document["paths"].items():
        tag = tag_of(path)
        for method, operation in methods.items():
            its = operation_id(tag, names[path, method])
            if its in ids:
                raise ValueError(
                    f"{method.upper()} {path} and {ids[its]} have the operation id {its}; rename a function"
                )
            ids[its] = f"{method.upper()} {path}"
            operation["operationId"], operation["tags"] = its, [tag]
            _name_headers(operation)
            _leave_text(operation)
    order = list(TAGS)
    # Short paths before those below them.
    by_group = sorted(document["paths"], key=lambda path: (order.index(tag_of(path)), path.count("/")))
    document["paths"] = {path: document["paths"][path] for path in by_group}
    used = {operation["tags"][0] for _, _, operation in operations(document)}
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    document["components"]["headers"] = _HEADERS


def operations(document: Mapping[str, Any]) -> Iterable[tuple[str, str, Operation]]:
    """Yields path, method and description of every operation of a document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _leave_text(operation: Operation) -> None:
    """Leaves out the JSON that the framework adds to answers which are a text."""
    content = operation["responses"].get("200", {}).get("content", {})
    if any(kind.startswith("text/") for kind in content):
        content.pop("application/json", None)


def _name_headers(operation: Operation) -> None:
    """Names the headers of each answer."""
    for status, answer in operation["responses"].items():
        names = (*_ALWAYS, *_BY_STATUS.get(status, ()), *(_OF_DEPRECATED if status == "200" else ()))
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
