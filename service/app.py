"""The FastAPI application.

Nothing is built at import, and `create_app` builds only the routes. The lifespan opens the parts of the service
(`service.assembly`) in the order in which they need each other, and closes them in reverse.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import metadata

from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import cors, direct_route, problems, senders, static_pages
from service.api.openapi import document as openapi
from service.api.request import runtime, secret_of
from service.api.request_gate import RequestGate
from service.api.roles import of_role
from service.api.routes import (
    docs_page,
    features,
    frontend,
    index,
    items,
    lists,
    ops,
    ops_experiments,
    ops_models,
    playground,
)
from service.api.runtime import Runtime
from service.api.space_of_request import SpaceOfRequest
from service.api.unanswered_bytes import UnansweredBytes
from service.assembly.process import Given, open_runtime
from service.common import logs
from service.common.errors import StartupError
from service.engine.interface import EngineLike
from service.metrics.service_metrics import Metrics
from service.process.process_state import ProcessState
from service.schemas.deprecations import DEPRECATIONS, Deprecations
from service.settings.service_settings import Settings
from service.store.store import Store

log = logs.get(__name__)


class Application(FastAPI):
    """FastAPI whose requests begin at the gate.

    What the framework puts around its middleware guards against errors and bodies that the gate has dealt with.
    """

    gate: RequestGate | None = None
    # Of the running service, for `service.api.request.runtime`; `state.runtime` is the same.
    parts: Runtime

    def build_middleware_stack(self) -> ASGIApp:
        """Builds the middleware, and finds the gate in it."""
        stack = layer = super().build_middleware_stack()
        while not isinstance(layer, RequestGate):
            layer = layer.app  # type: ignore[attr-defined]
        self.gate = layer
        return stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if self.gate is None or scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.gate(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    engine: EngineLike | None = None,
    store: Store | None = None,
    engines: Mapping[str, EngineLike] | None = None,
    metrics: Metrics | None = None,
    deprecations: Deprecations = DEPRECATIONS,
) -> FastAPI:
    """Returns the ASGI application.

    Its lifespan raises StartupError with the cause: a bad policies file, artefact, key list or Redis URL.

    Args:
        settings: Of the service.
        engine: The engine to serve; it is not closed. None opens the one of the settings.
        store: The store to use; it is not closed. None opens the one of the settings.
        engines: Engines of further spaces, by name; they are not closed. Others are opened.
        metrics: The metrics of the process; None creates them.
        deprecations: What is deprecated in the API.
    """
    metrics = metrics or Metrics()
    process_state = ProcessState()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                parts = await open_runtime(stack, settings, metrics, process_state, Given(engine, store, engines or {}))
            except StartupError as error:
                app.state.startup_error = error
                log.critical("startup_failed", reason=error.reason, cause=str(error))
                raise
            except Exception as error:
                log.critical("startup_broke", cause=str(error), **logs.where(error))
                raise
            application.parts = app.state.runtime = parts
            process_state.started = True
            for name, one in parts.spaces.items():
                shown = {"space": name} if parts.several else {}
                log.info("started", model_version=one.space.model.version, **shown)
            yield
            process_state.draining = True
            log.info("stopping")

    app = application = Application(
        title="gpt4rec",
        version=metadata.version("gpt4rec"),
        description="Next-item recommendations that always answer, and say how.",
        lifespan=lifespan,
        # The framework's own pages load scripts from other origins. `docs_page` has both the page and the document.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # It would redirect to http:// behind a proxy that terminates TLS, and out of its path prefix.
        redirect_slashes=False,
    )
    app.state.process_state = process_state
    app.state.unanswered_bytes = UnansweredBytes(int(settings.receiving_mib * 2**20), metrics)
    routers = [
        index.router,
        frontend.router,
        lists.router,
        items.router,
        items.one,  # searched before the routes of neighbours
        features.router,  # searched before the routes of users: the last ones are the first
        ops.router,
        ops_models.router,
        ops_experiments.router,
        static_pages.router,
        *([playground.router] if settings.playground else []),
    ]
    if settings.openapi_pages:
        routers.append(docs_page.router)
    routers = of_role(settings.role, routers)
    direct_route.install(app, *routers)
    problems.install(app, *routers)
    openapi.install(
        app,
        keys_needed=bool(settings.api_keys.get_secret_value()),
        metrics_guarded=bool(settings.metrics_tokens.get_secret_value()),
        deprecations=deprecations,
    )
    app.add_middleware(
        RequestGate,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        draining=lambda: process_state.draining,
        origins=cors.origins_of(settings.cors_origins),
        direct=direct_route.direct(*routers),
        senders=senders.Senders(senders.networks_of(settings.trusted_proxies)),
        root_path=senders.root_path_of(settings.root_path),
        deprecations=deprecations,
        owner=lambda scope: runtime(Request(scope)).access.owner(secret_of(Request(scope))),
        space=SpaceOfRequest(lambda: application.parts) if settings.spaces is not None else None,
    )
    return app
