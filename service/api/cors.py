"""CORS: which pages of other origins may call the API from a browser. By default none."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem
from service.common.errors import SettingsError
from service.common.request_errors import PreflightRefused

_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")
_METHODS = ("GET", "HEAD", "POST")
_REFUSED = 400
_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-GPT4Rec-Space", "X-Request-Id", "X-Request-Start")
_EXPOSED = ("Retry-After", "X-Request-Id", "Deprecation", "Sunset", "Link")
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
        """Passes the request on, with or without the CORS headers; answers a preflight."""
        if scope["path"].startswith(_OWN):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers:
            await self._preflight(scope, headers)(scope, receive, send)
            return
        await self._shared(scope, receive, send)

    def _preflight(self, scope: Scope, headers: Headers) -> Response:
        """Returns the answer to a preflight; a refusal is a problem document that says what is refused."""
        answer = self._shared.preflight_response(headers)
        if answer.status_code < _REFUSED:
            return answer
        what = bytes(answer.body).decode().removeprefix("Disallowed CORS ")
        error = PreflightRefused(f"GPT4REC_CORS_ORIGINS does not let a page of another origin send this: {what}")
        refusal = problem(error, scope["state"]["call"].request_id)
        if "vary" in answer.headers:
            refusal.headers["Vary"] = answer.headers["vary"]
        if "access-control-allow-origin" in answer.headers:
            refusal.headers["Access-Control-Allow-Origin"] = answer.headers["access-control-allow-origin"]
        return refusal
