"""Draws requests over every route of the service, by everybody who may want to call them.

The routes are those of the application, and the bodies and parameters those that the OpenAPI document shows, so a new
route is called without a line here. Ids are the same in every space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import orjson
from fastapi import FastAPI
from starlette.routing import Route

from loadtests.fleet.asgi_call import Asked

T = TypeVar("T")
Pick = Callable[[Sequence[T]], T]

USERS, SESSIONS, EXPERIMENTS = ("u-1", "u-2", "u/3"), ("s-1", "s-2"), ("wider_beams", "running")
UNKNOWN = "hats"
_VERSIONS = ("", "", "/v1")
_IDS = re.compile(r'"(user_id|session_id)": "[^"]*"')
# A marker of a request: what the space that it means may keep, and no other.
INTRUDER = "intruder"


@dataclass(frozen=True, slots=True)
class Shop:
    """A space, and the secrets that open it.

    Attributes:
        name: Of the space.
        key: An API key with every right.
        token: An ops token: of the space, or of the process for the default space.
        items: Ids of its catalogue.
        version: Of its model.
        marks: Texts that only this space has.
    """

    name: str
    key: str
    token: str
    items: Sequence[str]
    version: str
    marks: Sequence[str]


@dataclass(frozen=True, slots=True)
class Operation:
    """A route and a method, with what may be sent to it.

    Attributes:
        method: Of the request.
        path: Of the route, with placeholders.
        bodies: Bodies, as text.
        queries: Names of its parameters, with the values they may have.
    """

    method: str
    path: str
    bodies: tuple[str, ...]
    queries: Mapping[str, tuple[str, ...]]


def operations(app: FastAPI) -> list[Operation]:
    """Returns every operation of the application, described in the document or not."""
    document = app.openapi()["paths"]
    return [
        _operation(method, path, document.get(re.sub(r":\w+}", "}", path), {}).get(method.lower(), {}))
        for path, method in _routes(app)
    ]


def _routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for route in app.router.routes:
        if not isinstance(route, Route):
            raise TypeError(f"{route}: a kind of route that is not known here")
        yield from ((route.path, method) for method in sorted(route.methods or ()))


def _operation(method: str, path: str, described: Mapping[str, Any]) -> Operation:
    contents = described.get("requestBody", {}).get("content", {}).values()
    examples = [one["value"] for content in contents for one in content.get("examples", {}).values()]
    bodies = [one if isinstance(one, str) else json.dumps(one) for one in examples]
    queries = {
        one["name"]: tuple(str(example["value"]) for example in one.get("examples", {}).values())
        for one in described.get("parameters", ())
        if one["in"] == "query"
    }
    return Operation(method, path, tuple(bodies), {name: values for name, values in queries.items() if values})


@dataclass(frozen=True, slots=True)
class Way:
    """How a caller says which space it means.

    Attributes:
        says: What it is.
        secret: The secret that it presents, "" for none.
        by_path: The name in the path, None for none.
        by_header: The name in the header, None for none.
        reads_all: Whether it may see what is of the process: names of spaces, all metrics.
    """

    says: str
    secret: str = ""
    by_path: str | None = None
    by_header: str | None = None
    reads_all: bool = False


def fair_ways(shop: Shop, root: str) -> list[Way]:
    """Returns every way to call a space with a secret that opens it.

    Args:
        shop: The space that is called.
        root: An ops token of the process.
    """
    named = [(shop.name, None), (None, shop.name), (shop.name, shop.name)]
    found = [Way("the process", root, *names, reads_all=True) for names in named]
    return found + [Way("a secret", secret, *names) for secret in _own(shop, root) for names in [(None, None), *named]]


def foul_ways(shop: Shop, others: Sequence[Shop], root: str) -> list[Way]:
    """Returns ways to call a space without a secret, and to try other spaces with the secrets of this one.

    Args:
        shop: The space that is called.
        others: The spaces that must not be reached.
        root: An ops token of the process.
    """
    found = [Way("nobody", "", shop.name), Way("nobody", "", None, shop.name), Way("a wrong key", "wrong", shop.name)]
    for secret in _own(shop, root):
        found += [Way("a secret, into another path", secret, other.name) for other in others]
        found += [Way("a secret, into another header", secret, None, other.name) for other in others]
        found += [Way("a secret, by path and another header", secret, shop.name, other.name) for other in others]
        found.append(Way("a secret, into no space", secret, UNKNOWN))
    return found


def _own(shop: Shop, root: str) -> list[str]:
    """Returns the secrets that belong to a space."""
    return [secret for secret in (shop.key, shop.token) if secret != root]


def drawn(pick: Pick[Any], operation: Operation, shop: Shop, way: Way) -> Asked:
    """Returns a request to an operation.

    Args:
        pick: Chooses one of several values.
        operation: What is called.
        shop: The space whose ids are sent.
        way: How the space is named.
    """
    values: dict[str, Sequence[str]] = {
        "user_id": USERS, "session_id": SESSIONS, "item_id": shop.items, "version": (shop.version, "nothing"),
        "name": ("base.js", "base.css") if operation.path.startswith("/assets") else EXPERIMENTS,
    }  # fmt: skip
    path = re.sub(r"\{(\w+)(:\w+)?\}", lambda m: quote(pick(values[m[1]]), safe=""), operation.path)
    below = "" if way.by_path is None else f"/spaces/{way.by_path}"
    query = "&".join(
        f"{name}={quote(pick((*its, *values.get(name, ()))))}"
        for name, its in operation.queries.items()
        if pick((True, False))
    )
    headers = [] if not way.secret else [pick((("authorization", f"Bearer {way.secret}"), ("x-api-key", way.secret)))]
    if way.by_header is not None:
        headers.append(("x-gpt4rec-space", way.by_header))
    body = _body(pick, operation, shop) if operation.bodies else b""
    target = f"{below}{pick(_VERSIONS)}{path}"
    return Asked(operation.method, f"{target}?{query}" if query else target, tuple(headers), body)


def _body(pick: Pick[Any], operation: Operation, shop: Shop) -> bytes:
    text = pick(operation.bodies)
    text = _IDS.sub(lambda m: f'"{m[1]}": "{pick(USERS if m[1] == "user_id" else SESSIONS)}"', text)
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        return str(text).encode()  # lines
    if isinstance(body, dict):
        if "reason" in body:
            body["reason"] = f"{INTRUDER}-{shop.name}"
        if "features" in body:
            body["features"] = {"taste": f"{INTRUDER}-{shop.name}"}
        if "title" in body:
            body["title"] = f"{INTRUDER} {shop.name}"
    return orjson.dumps(body)
