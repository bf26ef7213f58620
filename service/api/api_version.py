"""`/v1`: every path is also there below the version of the API, and answers the same.

The version is taken off before anything looks at the path, so that routes, access rules, CORS and metrics know one
path, whichever was called, and none of them can forget the other.
"""

from __future__ import annotations

from starlette.types import Scope

VERSION = "/v1"
_BELOW = f"{VERSION}/"
_RAW_BELOW = _BELOW.encode()


def take_off(scope: Scope) -> str:
    """Takes the version off the path of a request, once, and returns it; "" if the path has none.

    Args:
        scope: Of the request, without the path prefix of a proxy. Its `path` and `raw_path` are changed.
    """
    path: str = scope["path"]
    if not path.startswith(_BELOW) and path != VERSION:
        return ""
    scope["path"] = path[len(VERSION) :] or "/"
    raw = scope.get("raw_path")
    if raw is not None and raw.startswith(_RAW_BELOW):
        scope["raw_path"] = raw[len(VERSION) :]
    return VERSION
