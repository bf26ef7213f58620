"""Routes whose functions read the request themselves.

Between a route and its function the framework resolves parameters, opens two exit stacks and adds a second layer of
exception handlers. That is a third of the event loop's time for a request that does nothing. A function that takes
only the request is called directly; other routes work as usual.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """A route whose function is called directly if it has no parameters; OpenAPI describes it like any other."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls the function, and sends its answer."""
        needs = self.dependant
        if needs.path_params or needs.query_params or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


Direct = Mapping[tuple[str, str], DirectRoute]


def direct(*routers: APIRouter) -> Direct:
    """Returns the routes that need no matching, by method and path."""
    return {
        (method, route.path): route
        for router in routers
        for route in router.routes
        if isinstance(route, DirectRoute) and "{" not in route.path and not route.dependant.query_params
        for method in route.methods or ()
    }


def install(app: FastAPI, *routers: APIRouter) -> None:
    """Adds the routes to the application itself: an included router would be searched in two steps."""
    for router in routers:
        app.router.routes[:0] = router.routes
