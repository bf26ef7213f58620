"""Opens the parts of the service in the order in which they need each other, and connects them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from service.access import credentials, secret_files
from service.access.keys import Access
from service.access.rate_limits import rates_for
from service.api.runtime import Runtime
from service.common.background import spawn
from service.common.errors import StoreUnavailable
from service.common.metrics import Metrics, watch_loop_lag
from service.common.process_state import ProcessState
from service.common.settings import Settings
from service.coordination.audit import Audit
from service.coordination.clock import SharedClock
from service.coordination.exchange import Exchange
from service.coordination.forced_mode import ForcedMode
from service.coordination.replica_registry import ReplicaRegistry
from service.coordination.shared_choice import SharedChoice
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
from service.history.write_queue import WriteQueue
from service.lifecycle import model_switch
from service.lifecycle.loader import LoadedModel, Loader
from service.lifecycle.model_folders import ModelFolders
from service.lifecycle.model_switch import ModelSwitch
from service.lifecycle.served_model import Serving
from service.ops.console import Console
from service.ops.recent_traffic import RecentTraffic
from service.ops.worker_peers import Peers
from service.playground.explorer import Explorer
from service.policies import policies, policy_keeper
from service.policies.policies import PolicyBook
from service.policies.policy_keeper import PolicyKeeper
from service.recommend.recommender import Recommender
from service.store.embedded_valkey import EmbeddedValkey
from service.store.health import RedisCheck
from service.store.store import Store
from service.store.store_settings import StoreSettings

_EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class _Process:
    """What every opener needs: the stack that closes the parts, the settings and the metrics."""

    stack: AsyncExitStack
    settings: Settings
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class _Shared:
    """The values that operators set and all replicas share."""

    clock: SharedClock
    audit: Audit
    mode: ForcedMode
    model: SharedChoice
    policies: SharedChoice
    exchange: Exchange


async def open_runtime(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    process_state: ProcessState,
    engine: EngineLike | None,
    store: Store | None,
) -> Runtime:
    """Opens every room, the cheapest checks first.

    Args:
        stack: Closes the parts in reverse order, also after a failed start.
        settings: Of the service.
        metrics: Of the process.
        process_state: Of the process; the caller keeps it up to date.
        engine: The engine to serve; opened from the settings, and closed with the rest, if None.
        store: The store to use; opened from the settings, and closed with the rest, if None.

    Raises:
        StartupError: A setting, the policies file, the artefact or Redis cannot be used.
    """
    process = _Process(stack, settings, metrics)
    access = _open_access(process)
    book = PolicyBook(policies.load(settings.policies))
    loader = Loader(settings, metrics)
    own_engine = engine is None
    engine = engine or await loader.open()
    history_cap = max(settings.history_cap or 0, engine.receptive_field)
    store = store or await _open_store(process, history_cap)

    shared = await _open_coordination(settings, store)
    policy_keeper = PolicyKeeper(book, settings.policies, shared.policies)
    guard = _open_guard(settings, shared.mode)
    queue = WriteQueue(settings.write_behind_max)
    states = _state_keeper(process, store, queue, history_cap)
    serving, models = await _open_lifecycle(
        process, store, shared, loader, await loader.start(engine, own=own_engine), states, guard
    )
    _follow_shared_values(process, shared.exchange, models, policy_keeper)
    write_behind = _open_write_behind(process, store, queue, states)

    ids = Pseudonyms(settings.hash_user_ids)
    recommender = _open_recommender(process, serving, states, book, guard, ids)
    recent, peers = _open_traffic(process, guard)
    console = Console(
        recent,
        peers,
        settings=settings,
        access=access,
        metrics=metrics,
        process=process_state,
        serving=serving,
        models=models,
        guard=guard,
        mode=shared.mode,
    )
    return Runtime(
        settings=settings,
        access=access,
        metrics=metrics,
        process_state=process_state,
        serving=serving,
        store=store,
        policies=book,
        policy_keeper=policy_keeper,
        models=models,
        guard=guard,
        mode=shared.mode,
        audit=shared.audit,
        states=states,
        write_behind=write_behind,
        recommender=recommender,
        ingest=Ingest(store, serving, write_behind, book, metrics, ids),
        console=console,
        peers=peers,
        redis=RedisCheck(store, metrics),
        rates=rates_for(settings, store, metrics),
        explorer=_open_playground(process, serving),
    )


def _open_access(process: _Process) -> Access:
    """Returns who may call; follows the files of secrets."""
    access = credentials.access(process.settings)
    if followed := credentials.files(access):
        spawn(process.stack, lambda: secret_files.follow(followed))
    return access


async def _open_store(process: _Process, history_cap: int) -> Store:
    """Returns the store in the Redis of the settings, or in an embedded server that is kept alive."""
    settings, stack = process.settings, process.stack
    url = settings.redis_url.get_secret_value()
    if url == _EMBEDDED:
        server = EmbeddedValkey(settings.data_dir)
        url = await asyncio.to_thread(server.start)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        spawn(stack, server.keep_alive)
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


async def _open_coordination(settings: Settings, store: Store) -> _Shared:
    """Returns the shared values after a first exchange, so that the first answer already follows them."""
    clock = SharedClock()
    audit = Audit(store, clock)

    def choice(name: str, usable: Callable[[dict[str, Any]], bool]) -> SharedChoice:
        return SharedChoice(store, name, clock, audit, usable=usable, copy=_copy(settings, name))

    mode = ForcedMode(store, clock, audit, copy=_copy(settings, "mode"))
    model, policies = choice("model", model_switch.usable), choice("policies", policy_keeper.usable)
    exchange = Exchange(store, (mode, model, policies), audit, poll_s=settings.mode_poll_ms / 1000.0)
    with contextlib.suppress(StoreUnavailable):
        await exchange.once()
    return _Shared(clock, audit, mode, model, policies, exchange)


def _open_guard(settings: Settings, mode: ForcedMode) -> Guard:
    """Returns the guard that chooses the rung: the breaker and the budgets."""
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


async def _open_lifecycle(
    process: _Process,
    store: Store,
    shared: _Shared,
    loader: Loader,
    first: LoadedModel,
    states: StateKeeper,
    guard: Guard,
) -> tuple[Serving, ModelSwitch]:
    """Returns the model in service and its switch; a model that operators chose before a restart is loaded again."""
    settings = process.settings
    serving = Serving(first.model, on_replace=states.model_replaced)
    first.serve(serving)
    models = ModelSwitch(
        first,
        serving,
        loader,
        ModelFolders(settings.artifact),
        shared.model,
        ReplicaRegistry(store, shared.clock),
        shared.audit,
        process.metrics,
        prepare=states.prepare,
        on_swap=guard.model_changed,
        on_close=lambda: states.cache.keep_only(serving.model),
        deployed=None if settings.artifact is None else settings.artifact.name,
        history_cap=states.history_cap,
        busy_s=(settings.deadline_max_ms + settings.catch_up_timeout_ms) / 1000.0,
    )
    process.stack.push_async_callback(models.close)
    await models.follow()
    return serving, models


def _follow_shared_values(process: _Process, exchange: Exchange, models: ModelSwitch, policies: PolicyKeeper) -> None:
    """Follows what operators set, and the policies file."""
    for part in (models, policies, exchange):
        spawn(process.stack, part.run)


def _state_keeper(process: _Process, store: Store, queue: WriteQueue, history_cap: int) -> StateKeeper:
    """Returns the keeper of the encoder states; what it cannot store at once goes to the queue."""
    settings = process.settings
    return StateKeeper(
        store,
        process.metrics,
        ProfileCache(int(settings.cache_mib * 2**20)),
        queue,
        history_cap=history_cap,
        catch_up_s=settings.catch_up_timeout_ms / 1000.0,
        h_only=settings.state == "h_only",
    )


def _open_write_behind(process: _Process, store: Store, queue: WriteQueue, states: StateKeeper) -> WriteBehind:
    """Returns the loop that brings the states up to date in the background, and follows erasures."""
    stack = process.stack
    write_behind = WriteBehind(queue, states, store, process.metrics)
    stack.push_async_callback(write_behind.drain, process.settings.drain_timeout_s)
    spawn(stack, write_behind.run)
    spawn(stack, Erasures(store, write_behind, states).run)
    return write_behind


def _open_recommender(
    process: _Process, serving: Serving, states: StateKeeper, book: PolicyBook, guard: Guard, ids: Pseudonyms
) -> Recommender:
    settings = process.settings
    return Recommender(
        serving,
        states,
        book,
        guard,
        process.metrics,
        ids,
        budget_ms=settings.deadline_ms,
        budget_max_ms=settings.deadline_max_ms,
    )


def _open_traffic(process: _Process, guard: Guard) -> tuple[RecentTraffic, Peers]:
    """Returns recent traffic and the calls to the other workers; measures the lag of the event loop."""
    recent, peers = RecentTraffic(process.metrics), Peers()
    interval_s = process.settings.loop_lag_interval_ms / 1000.0
    spawn(process.stack, recent.run)
    spawn(process.stack, lambda: watch_loop_lag(process.metrics, interval_s, guard.lagged))
    process.stack.push_async_callback(peers.close)
    return recent, peers


def _open_playground(process: _Process, serving: Serving) -> Explorer | None:
    """Returns what the playground page needs, None if it is off."""
    if not process.settings.playground:
        return None
    explorer = Explorer(serving)
    process.stack.callback(explorer.close)
    spawn(process.stack, explorer.run)
    return explorer


def _copy(settings: Settings, name: str) -> Path:
    """Returns the file that keeps a shared value for a restart while Redis is away.

    Each Redis and prefix has files of its own, so that two deployments that share a folder do not mix.
    """
    server = settings.redis_url.get_secret_value().rpartition("@")[2]
    digest = blake2b(f"{server} {settings.redis_prefix}".encode(), digest_size=6).hexdigest()
    return settings.data_dir / f"{name}-{digest}.json"
