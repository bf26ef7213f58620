"""Routes whose functions read the request themselves.

What the framework does between a route and its function (resolving parameters of which there are none, two exit
stacks, a second layer of exception handlers) is a third of the event loop's time for a request that does nothing. A
function that takes the request and nothing else is called directly; the rest is as it was.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """Described in the OpenAPI document like any other, and called without detours where it has no parameters."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        needs = self.dependant
        if needs.path_params or needs.query_params or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


Direct = Mapping[tuple[str, str], DirectRoute]


def direct(*routers: APIRouter) -> Direct:
    """The routes that need no matching, by method and path."""
    return {
        (method, route.path): route
        for router in routers
        for route in router.routes
        if isinstance(route, DirectRoute) and "{" not in route.path and not route.dependant.query_params
        for method in route.methods or ()
    }


def install(app: FastAPI, *routers: APIRouter) -> None:
    """Puts the routes into the application itself: an included router would be searched in two steps."""
    for router in routers:
        app.router.routes[:0] = router.routes
