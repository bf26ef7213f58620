"""Opens the parts of the service in the order in which they need each other, and wires them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from hashlib import blake2b
from pathlib import Path

from service.access import credentials, secret_files
from service.access.rate_limits import rates_for
from service.api.runtime import Runtime
from service.common import logs
from service.common.background import spawn
from service.common.errors import StartupError, StoreUnavailable
from service.common.metrics import Metrics, watch_loop_lag
from service.common.process_state import Lifecycle
from service.common.settings import Settings
from service.coordination.forced_mode import ModeKeeper
from service.coordination.replica_registry import Replicas
from service.coordination.shared_value import Shared
from service.engine.interface import EngineLike
from service.guard.breaker import BreakerSettings
from service.guard.error_budgets import BudgetSettings
from service.guard.guard import Guard, GuardSettings
from service.history.erasures import Erasures
from service.history.ingest import Ingest
from service.history.profile_cache import ProfileCache
from service.history.pseudonyms import Pseudonyms
from service.history.state_keeper import StateKeeper
from service.history.write_behind import WriteBehind
from service.lifecycle import model_switch
from service.lifecycle.loader import Loader
from service.lifecycle.model_folders import ModelFolders
from service.lifecycle.model_switch import Models
from service.lifecycle.served_model import Serving
from service.ops.console import Console
from service.ops.recent_traffic import Live
from service.ops.worker_peers import Peers
from service.playground.explorer import Explorer
from service.policies import policies, policy_keeper
from service.policies.policies import PolicyBook
from service.policies.policy_keeper import PolicyKeeper
from service.recommend.recommender import Recommender
from service.store.embedded_valkey import EmbeddedValkey
from service.store.health import RedisCheck
from service.store.store import Store, StoreSettings

log = logs.get(__name__)

_EMBEDDED = "embedded"


_PAUSE_S = 1.0


async def open_runtime(
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
    chosen_model = Shared(store, "model", mode, usable=model_switch.usable, copy=_copy(settings, "model"))
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
    console = Console(
        live,
        peers,
        settings=settings,
        access=access,
        metrics=metrics,
        process=lifecycle,
        serving=serving,
        models=serve_models,
        guard=guard,
        mode=mode,
    )
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
        console=console,
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
