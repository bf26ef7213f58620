"""Finds the space that a request names, and takes the name off its path.

`/spaces/NAME/…` stands before the version of the API. Both are taken off before anything looks at the path, so that
routes, access rules, CORS and metrics know one path, whichever space it was called in.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import Scope

from service.api.connection import REFUSED
from service.api.request import secret_of
from service.api.runtime import Runtime
from service.common.errors import ServiceError
from service.common.request_context import RequestContext
from service.common.request_errors import BadRequest
from service.guard.in_flight import InFlight
from service.metrics.service_metrics import Metrics
from service.settings.space import DEFAULT
from service.spaces.choice import chosen

BELOW = "/spaces/"
HEADER = b"x-gpt4rec-space"


def space_path(name: str) -> str:
    """Returns the path below which a space is reached; "" for the default space."""
    return "" if name == DEFAULT else f"{BELOW}{name}"


class SpaceOfRequest:
    """Chooses the space of each request, where the deployment has several.

    Args:
        parts: Returns the parts of the running service.
    """

    def __init__(self, parts: Callable[[], Runtime]) -> None:
        self._parts = parts

    def __call__(self, scope: Scope, call: RequestContext) -> tuple[Metrics, InFlight | None]:
        """Notes the space of a request, or why it has none; returns what counts the request.

        Args:
            scope: Of the request, without the path prefix of a proxy. The name is taken off its path.
            call: The request; its `space` and `prefix` are changed.
        """
        parts = self._parts()
        by_path = _take_off(scope)
        secret = secret_of(Request(scope))
        try:
            call.space = chosen(parts.owners, by_path, _named_by_header(scope, call), secret)
        except ServiceError as error:
            scope.setdefault(REFUSED, error)
            # The caller's own space counts the refusal, not the one that it may not use.
            owner = parts.owners.owner(secret)
            if owner is None:
                return parts.unspaced, None
            call.space = owner
        else:
            if by_path is not None:
                call.prefix += f"{BELOW}{by_path}"
        call.facts["space"] = call.space
        space = parts.spaces[call.space]
        return space.metrics, space.in_flight


def _take_off(scope: Scope) -> str | None:
    """Takes the name of a space off the path of a request, and returns it; None if the path has none."""
    path: str = scope["path"]
    if not path.startswith(BELOW):
        return None
    name, _, rest = path[len(BELOW) :].partition("/")
    scope["path"] = f"/{rest}"
    below = f"{BELOW}{name}".encode()
    raw = scope.get("raw_path")
    if raw is not None and (raw == below or raw.startswith((below + b"/", below + b"?"))):
        scope["raw_path"] = raw[len(below) :] or b"/"
    return name


def _named_by_header(scope: Scope, call: RequestContext) -> str | None:
    """Returns the name in the header.

    Raises:
        BadRequest: There are several, as when a proxy adds its own to that of a client.
    """
    first = call.headers.get(HEADER)
    if first is None:
        return None
    if any(value != first for name, value in scope["headers"] if name == HEADER):
        raise BadRequest("there are several headers X-GPT4Rec-Space, which name different spaces; send one")
    return first.decode("latin-1")
