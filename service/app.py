"""The composition root: `create_app` is the only place where the parts of the service meet.

Nothing is built at import, and nothing at `create_app` but the routes: the parts are opened in the lifespan,
in the order in which they need each other, and closed in reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b
from importlib import metadata
from pathlib import Path

from fastapi import FastAPI

from service import api, logs, openapi, ops, policies, problems, routes
from service.auth import Access, Keys
from service.background import Background, Work
from service.batcher import Batcher
from service.breaker import BreakerSettings
from service.budgets import BudgetSettings
from service.embedded import EmbeddedValkey
from service.engine import Job
from service.errors import StartupError
from service.guard import Guard, GuardSettings
from service.ingest import Ingest
from service.keeper import StateKeeper
from service.metrics import Metrics, watch_loop_lag
from service.middleware import RequestGate
from service.mode import ModeKeeper
from service.policies import PolicyBook
from service.recommender import Recommender
from service.runtime import Lifecycle, Runtime
from service.served import EngineLike, ServedModel
from service.settings import PREFIX, Settings
from service.store import Store, StoreSettings

log = logs.get(__name__)

_EMBEDDED = "embedded"
_PAUSE_S = 1.0
_STAGE_OF = {"encoder": "encode", "decoder": "decode"}


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
    )
    app.state.lifecycle = lifecycle
    routes.install(app, ops.router, api.router)
    problems.install(app, api.router, ops.router)
    openapi.install(app, keys_needed=bool(settings.api_keys.get_secret_value()))
    app.add_middleware(
        RequestGate,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        draining=lambda: lifecycle.draining,
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
    access = Access(
        Keys.parse(settings.api_keys, f"{PREFIX}API_KEYS", rights=True),
        Keys.parse(settings.ops_tokens, f"{PREFIX}OPS_TOKENS", rights=False),
    )
    book = PolicyBook(policies.load(settings.policies))
    if engine is None:
        engine = await _open_engine(stack, settings)
    history_cap = max(settings.history_cap or 0, engine.receptive_field)
    if store is None:
        store = await _open_store(stack, settings, history_cap)

    mode = ModeKeeper(store, poll_s=settings.mode_poll_ms / 1000.0, copy=_mode_copy(settings))
    guard = _guard(settings, mode)
    background = Background(settings.background_tasks_max)
    stack.push_async_callback(background.close, settings.drain_timeout_s)
    model = await _start_model(stack, settings, engine, guard, metrics)
    _spawn(stack, mode.run)
    lag_s = settings.loop_lag_interval_ms / 1000.0
    _spawn(stack, lambda: watch_loop_lag(metrics, lag_s, guard.lagged))

    states = StateKeeper(
        store, metrics, background, history_cap=history_cap, catch_up_s=settings.catch_up_timeout_ms / 1000.0
    )
    recommender = Recommender(
        lambda: model,
        states,
        book,
        guard,
        metrics,
        budget_ms=settings.deadline_ms,
        budget_max_ms=settings.deadline_max_ms,
        reserve_ms=settings.fallback_reserve_ms,
    )
    ingest = Ingest(store, lambda: model, book, metrics)
    return Runtime(
        settings=settings,
        access=access,
        metrics=metrics,
        lifecycle=lifecycle,
        model=model,
        store=store,
        policies=book,
        guard=guard,
        mode=mode,
        background=background,
        recommender=recommender,
        ingest=ingest,
    )


async def _open_engine(stack: AsyncExitStack, settings: Settings) -> EngineLike:
    from service.engine import Engine

    if settings.artifact is None:
        raise StartupError(f"no artefact to serve: set {PREFIX}ARTIFACT or give --artifact")
    engine: EngineLike = await asyncio.to_thread(
        Engine.open, settings.artifact, device=settings.device, threads=settings.engine_threads or None
    )
    stack.callback(engine.close)
    return engine


async def _start_model(
    stack: AsyncExitStack, settings: Settings, engine: EngineLike, guard: Guard, metrics: Metrics
) -> ServedModel:
    """Warms the engine up before anything is accepted, and puts it behind its batcher."""

    def on_graph(graph: str, rows: int, seconds: float) -> None:
        metrics.batch_size.labels(graph).observe(rows)
        metrics.stage_duration.labels(_STAGE_OF[graph]).observe(seconds)

    try:
        await asyncio.to_thread(engine.warm_up)
    except Exception as error:
        raise StartupError(f"the model {engine.model_version} cannot be warmed up: {error}") from error

    engine.on_graph = on_graph

    def on_run(jobs: Sequence[Job], seconds: float) -> None:
        events = max(len(job.item) for job in jobs)
        widths = {job.width for job in jobs if job.k}
        if widths:
            guard.measured("full" if None in widths else "narrow", seconds, events)
        else:
            guard.encoded(seconds, events)

    batcher = Batcher(
        engine,
        metrics,
        batch_max=settings.batch_max,
        window_s=settings.batch_window_ms / 1000.0,
        queue_max=settings.queue_max,
        stall_s=settings.engine_stall_s,
        on_run=on_run,
    )
    batcher.start()
    stack.push_async_callback(batcher.close, settings.drain_timeout_s)
    metrics.model_info.labels(engine.model_version).set(1)
    return ServedModel.of(engine, batcher)


async def _open_store(stack: AsyncExitStack, settings: Settings, history_cap: int) -> Store:
    url = settings.redis_url.get_secret_value()
    if url == _EMBEDDED:
        server = EmbeddedValkey(settings.data_dir)
        url = await asyncio.to_thread(server.start)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        _spawn(stack, lambda: _keep_alive(server))
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
    breaker = BreakerSettings(
        window_s=settings.breaker_window_s,
        min_attempts=settings.breaker_min_attempts,
        failure_ratio=settings.breaker_failure_ratio,
        open_s=settings.breaker_open_s,
        half_open_probes=settings.breaker_half_open_probes,
    )
    budgets = BudgetSettings(late_share=settings.latency_budget_share, failed_share=settings.error_budget_share)
    guard = GuardSettings(
        breaker=breaker, budgets=budgets, max_batch=settings.batch_max, reserve_ms=settings.fallback_reserve_ms
    )
    return Guard(guard, time.monotonic, mode.current)


def _mode_copy(settings: Settings) -> Path:
    """Where the mode is kept for a restart while Redis is away: a file for each Redis and prefix, so that two
    deployments that share a folder do not take over each other's mode."""
    server = settings.redis_url.get_secret_value().rpartition("@")[2]
    name = blake2b(f"{server} {settings.redis_prefix}".encode(), digest_size=6).hexdigest()
    return settings.data_dir / f"mode-{name}.json"


def _spawn(stack: AsyncExitStack, work: Work) -> None:
    """A task for the life of the service; if it breaks, the log says so and it starts anew."""
    task = asyncio.create_task(_watched(work))

    async def stop() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stop)


async def _watched(work: Work) -> None:
    while True:
        try:
            await work()
        except Exception as error:
            log.critical("background_loop_broke", **logs.where(error))
        await asyncio.sleep(_PAUSE_S)
