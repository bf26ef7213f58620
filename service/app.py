"""The composition root: `create_app` is the only place where the parts of the service meet.

Nothing is built at import, and nothing at `create_app` but the routes: the parts are opened in the lifespan,
in the order in which they need each other, and closed in reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b
from importlib import metadata
from pathlib import Path

from fastapi import FastAPI

from service import (
    api,
    api_page,
    cors,
    credentials,
    logs,
    models,
    openapi,
    ops,
    ops_models,
    playground,
    policies,
    policy_keeper,
    problems,
    routes,
    secret_files,
)
from service.background import spawn
from service.behind import WriteBehind
from service.breaker import BreakerSettings
from service.budgets import BudgetSettings
from service.cache import ProfileCache
from service.console import Console
from service.embedded import EmbeddedValkey
from service.erasures import Erasures
from service.errors import StartupError, StoreUnavailable
from service.explorer import Explorer
from service.guard import Guard, GuardSettings
from service.ingest import Ingest
from service.keeper import StateKeeper
from service.live import Live
from service.loading import Loader
from service.merged_metrics import Peers
from service.metrics import Metrics, watch_loop_lag
from service.middleware import RequestGate
from service.mode import ModeKeeper
from service.model_folders import ModelFolders
from service.models import Models
from service.policies import PolicyBook
from service.policy_keeper import PolicyKeeper
from service.pseudonyms import Pseudonyms
from service.rates import rates_for
from service.recommender import Recommender
from service.replicas import Replicas
from service.runtime import Lifecycle, RedisCheck, Runtime
from service.served import EngineLike, Serving
from service.settings import Settings
from service.shared import Shared
from service.store import Store, StoreSettings
from service.web import pages

log = logs.get(__name__)

_EMBEDDED = "embedded"
_PAUSE_S = 1.0


def create_app(
    settings: Settings,
    *,
    engine: EngineLike | None = None,
    store: Store | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """The ASGI application. `engine` and `store` are opened from the settings where they are not given; what
    is given is not closed.

    The lifespan raises StartupError with the cause: a bad policies file, artefact, key list or Redis URL.
    """
    metrics = metrics or Metrics()
    lifecycle = Lifecycle()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.runtime = await _open(stack, settings, metrics, lifecycle, engine, store)
            except StartupError as error:
                app.state.startup_error = error
                log.critical("startup_failed", reason=error.reason, cause=str(error))
                raise
            except Exception as error:
                log.critical("startup_broke", cause=str(error), **logs.where(error))
                raise
            lifecycle.started = True
            log.info("started", model_version=app.state.runtime.model.version)
            yield
            lifecycle.draining = True
            log.info("stopping")

    app = FastAPI(
        title="gpt4rec",
        version=metadata.version("gpt4rec"),
        description="Next-item recommendations that always answer, and say how.",
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.openapi_pages else None,
        # Those of the framework load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.lifecycle = lifecycle
    routers = [
        api.router,
        ops.router,
        ops_models.router,
        pages.router,
        *([playground.router] if settings.playground else []),
    ]
    if settings.openapi_pages:
        routers.append(api_page.router)
    routes.install(app, *routers)
    problems.install(app, *routers)
    openapi.install(
        app,
        keys_needed=bool(settings.api_keys.get_secret_value()),
        metrics_guarded=bool(settings.metrics_tokens.get_secret_value()),
    )
    app.add_middleware(
        RequestGate,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        draining=lambda: lifecycle.draining,
        origins=cors.origins_of(settings.cors_origins),
        direct=routes.direct(*routers),
    )
    return app


async def _open(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    lifecycle: Lifecycle,
    engine: EngineLike | None,
    store: Store | None,
) -> Runtime:
    """Opens the parts; what is cheap to check comes first."""
    access = credentials.access(settings)
    book = PolicyBook(policies.load(settings.policies))
    loader = Loader(settings, metrics)
    given = engine is not None
    if engine is None:
        engine = await loader.open()
    history_cap = max(settings.history_cap or 0, engine.receptive_field)
    if store is None:
        store = await _open_store(stack, settings, history_cap)

    mode = ModeKeeper(store, poll_s=settings.mode_poll_ms / 1000.0, copy=_copy(settings, "mode"))
    chosen_model = Shared(store, "model", mode, usable=models.usable, copy=_copy(settings, "model"))
    set_policies = Shared(store, "policies", mode, usable=policy_keeper.usable, copy=_copy(settings, "policies"))
    mode.followers = [chosen_model, set_policies]
    policy_keeping = PolicyKeeper(book, settings.policies, set_policies)
    with contextlib.suppress(StoreUnavailable):
        await mode.exchange()  # so that the first list goes by what is in force already
    guard = _guard(settings, mode)
    first = await loader.start(engine, own=not given)
    serving = Serving(first.model)
    first.serve(serving)
    serve_models = Models(
        first,
        serving,
        loader,
        ModelFolders(settings.artifact),
        chosen_model,
        Replicas(store, mode.now),
        mode,
        metrics,
        deployed=None if settings.artifact is None else settings.artifact.name,
        history_cap=history_cap,
        busy_s=(settings.deadline_max_ms + settings.catch_up_timeout_ms) / 1000.0,
    )
    stack.push_async_callback(serve_models.close)
    await serve_models.follow()  # what operators chose before a restart
    spawn(stack, serve_models.run)
    spawn(stack, policy_keeping.run)
    spawn(stack, mode.run)
    if followed := credentials.files(access):
        spawn(stack, lambda: secret_files.follow(followed))
    live = Live(metrics)
    spawn(stack, live.run)
    lag_s = settings.loop_lag_interval_ms / 1000.0
    spawn(stack, lambda: watch_loop_lag(metrics, lag_s, guard.lagged))

    ids = Pseudonyms(settings.hash_user_ids)
    states, behind = _states(stack, settings, store, metrics, history_cap)
    serving.on_replace = states.taken_over
    serve_models.prepare = states.prepare
    serve_models.swapped = guard.model_changed
    serve_models.forget = lambda: states.cache.keep_only(serving.model)
    recommender = Recommender(
        serving,
        states,
        book,
        guard,
        metrics,
        ids,
        budget_ms=settings.deadline_ms,
        budget_max_ms=settings.deadline_max_ms,
    )
    rates = rates_for(settings, store, metrics)
    ingest = Ingest(store, serving, behind, book, metrics, ids)
    explorer = Explorer(serving) if settings.playground else None
    if explorer is not None:
        stack.callback(explorer.close)
        spawn(stack, explorer.run)
    peers = Peers()
    stack.push_async_callback(peers.close)
    return Runtime(
        settings=settings,
        access=access,
        metrics=metrics,
        lifecycle=lifecycle,
        serving=serving,
        store=store,
        policies=book,
        policy_keeper=policy_keeping,
        models=serve_models,
        guard=guard,
        mode=mode,
        states=states,
        behind=behind,
        recommender=recommender,
        ingest=ingest,
        console=Console(live, peers),
        peers=peers,
        redis=RedisCheck(store, metrics),
        rates=rates,
        explorer=explorer,
    )


def _states(
    stack: AsyncExitStack, settings: Settings, store: Store, metrics: Metrics, history_cap: int
) -> tuple[StateKeeper, WriteBehind]:
    """The keeper of the states, and the loop that advances them behind the answers."""
    states = StateKeeper(
        store,
        metrics,
        ProfileCache(int(settings.cache_mib * 2**20)),
        history_cap=history_cap,
        catch_up_s=settings.catch_up_timeout_ms / 1000.0,
        h_only=settings.state == "h_only",
    )
    behind = WriteBehind(states, store, metrics, most=settings.write_behind_max)
    stack.push_async_callback(behind.drain, settings.drain_timeout_s)
    spawn(stack, behind.run)
    spawn(stack, Erasures(store, behind, states).run)
    return states, behind


async def _open_store(stack: AsyncExitStack, settings: Settings, history_cap: int) -> Store:
    url = settings.redis_url.get_secret_value()
    if url == _EMBEDDED:
        server = EmbeddedValkey(settings.data_dir)
        url = await asyncio.to_thread(server.start)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        spawn(stack, lambda: _keep_alive(server))
    store = await Store.connect(
        StoreSettings(
            url=url,
            prefix=settings.redis_prefix,
            history_cap=history_cap,
            signals_cap=settings.signals_cap,
            ttl_s=settings.history_ttl_s,
            signals_ttl_s=settings.signals_ttl_s,
            state_ttl_s=settings.state_ttl_s,
            read_timeout_ms=settings.redis_read_timeout_ms,
            write_timeout_ms=settings.redis_write_timeout_ms,
            durability=settings.redis_durability,
            durability_timeout_ms=settings.redis_durability_timeout_ms,
            replicas=settings.redis_replicas,
            max_connections=settings.redis_connections_max,
            audit_cap=settings.audit_cap,
        )
    )
    stack.push_async_callback(store.close)
    return store


async def _keep_alive(server: EmbeddedValkey) -> None:
    """Restarts an embedded server that died; its append-only file has what was acknowledged."""
    while True:
        await asyncio.sleep(_PAUSE_S)
        if server.pid is not None:
            continue
        log.error("embedded_server_died")
        try:
            await asyncio.to_thread(server.restart)
        except StartupError as error:
            log.error("embedded_server_not_restarted", cause=str(error))
        else:
            log.warning("embedded_server_restarted")


def _guard(settings: Settings, mode: ModeKeeper) -> Guard:
    budgets = BudgetSettings(
        late_share=settings.latency_budget_share,
        failed_share=settings.error_budget_share,
        below_share=settings.served_budget_share,
        least=settings.breaker_min_attempts,
    )
    breaker = BreakerSettings(
        window_s=settings.breaker_window_s,
        min_attempts=settings.breaker_min_attempts,
        failure_ratio=settings.breaker_failure_ratio,
        open_s=settings.breaker_open_s,
        hold_max_s=settings.breaker_hold_max_s,
        half_open_probes=settings.breaker_half_open_probes,
        budgets=budgets,
    )
    return Guard(GuardSettings(breaker=breaker, reserve_ms=settings.fallback_reserve_ms), time.monotonic, mode.current)


def _copy(settings: Settings, name: str) -> Path:
    """Where something shared is kept for a restart while Redis is away: a file for each Redis and prefix, so that two
    deployments that share a folder do not take over each other's."""
    server = settings.redis_url.get_secret_value().rpartition("@")[2]
    digest = blake2b(f"{server} {settings.redis_prefix}".encode(), digest_size=6).hexdigest()
    return settings.data_dir / f"{name}-{digest}.json"
