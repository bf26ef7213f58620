"""CORS: which pages of other origins may call the API from a browser. By default none."""

from __future__ import annotations

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.common.errors import SettingsError

_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")
_METHODS = ("GET", "POST")
_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Request-Id", "X-Request-Start")
_EXPOSED = ("Retry-After", "X-Request-Id")
_REMEMBERED_S = 600
# Never open to other origins: the routes of operators, and those that show or erase a user.
_OWN = ("/ops", "/users", "/metrics")


def origins_of(text: str) -> tuple[str, ...]:
    """Parses the setting: `https://shop.example,https://m.shop.example:8443`, or `*` for all origins.

    Raises:
        SettingsError: An entry is not an origin.
    """
    found = tuple(origin.strip() for origin in text.split(",") if origin.strip())
    if found == ("*",):
        return found
    for origin in found:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(f"GPT4REC_CORS_ORIGINS: {origin} is not an origin; write it as https://shop.example")
    return found


class Cors:
    """Answers preflights and adds the CORS headers, except on the paths that other origins may never call.

    The service uses no cookies, so credentials are never allowed.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._shared = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_HEADERS,
            expose_headers=_EXPOSED,
            max_age=_REMEMBERED_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, with or without the CORS headers."""
        own = scope["path"].startswith(_OWN)
        await (self._app if own else self._shared)(scope, receive, send)
