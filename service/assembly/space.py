"""Opens the parts of one space in the order in which they need each other, and connects them."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from service.access.rate_limits import rates_for
from service.answers.kept_lists import KeptLists
from service.api.runtime import SpaceRuntime
from service.assembly.experiments import open_experiments, open_guards, open_preview, open_shadows
from service.assembly.items import open_items, open_live_items
from service.assembly.opening import Opening
from service.assembly.roles import open_handover, open_stream_encoder
from service.batching.run_scheduler import NO_TURNS, StageTurns
from service.common.background import spawn
from service.common.disk_lane import DiskLane, HungFileError
from service.common.errors import StartupError, StoreUnavailable
from service.common.metrics import Metrics
from service.common.space import Space
from service.common.watched_file import WatchedFile
from service.coordination.audit import Audit
from service.coordination.clock import SharedClock
from service.coordination.exchange import Exchange
from service.coordination.forced_mode import ForcedMode
from service.coordination.replica_registry import ReplicaRegistry
from service.coordination.shared_choice import SharedChoice
from service.engine.interface import EngineLike
from service.experiments import document
from service.experiments.arms import Arms
from service.experiments.canary_watch import CanaryWatch
from service.experiments.keeper import ExperimentKeeper, in_force
from service.exposures.erasure import StreamErasure
from service.exposures.recorder import Recorder, RecorderSettings
from service.guard.guards import Guards
from service.history.erasures import Erasures
from service.history.features import Features
from service.history.ingest import Ingest
from service.history.profile_cache import ProfileCache
from service.history.pseudonyms import Pseudonyms
from service.history.state_keeper import StateKeeper
from service.history.write_behind import WriteBehind
from service.history.write_queue import WriteQueue
from service.lifecycle import model_choice
from service.lifecycle.held_models import HeldModels
from service.lifecycle.loader import LoadedModel, Loader
from service.lifecycle.model_admission import ModelAdmission, nothing_to_prepare
from service.lifecycle.model_folders import ModelFolders
from service.lifecycle.model_switch import ModelSwitch
from service.lifecycle.resident_models import ResidentModels
from service.lifecycle.served_model import Serving
from service.ops.state_changes import StateChanges
from service.playground.explorer import Explorer
from service.policies import policies, policy_keeper
from service.policies.policies import Policies, PolicyBook
from service.policies.policy_keeper import PolicyKeeper
from service.recommend.baskets import Baskets
from service.recommend.pages import Pages
from service.recommend.reasons import Reasons
from service.recommend.recent_requests import RecentRequests
from service.recommend.recommender import Recommender
from service.recommend.shadows import Shadows
from service.store.health import RedisCheck
from service.store.records import Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from service.watch.traffic_watch import TrafficWatch


@dataclass(frozen=True, slots=True)
class _Shared:
    """The values that operators set and all replicas share."""

    clock: SharedClock
    audit: Audit
    mode: ForcedMode
    model: SharedChoice
    policies: SharedChoice
    experiments: SharedChoice
    exchange: Exchange


async def open_space(
    stack: AsyncExitStack,
    metrics: Metrics,
    space: Space,
    redis_url: Callable[[], Awaitable[str]],
    engine: EngineLike | None = None,
    store: Store | None = None,
    turns: StageTurns = NO_TURNS,
    residents: ResidentModels | None = None,
) -> SpaceRuntime:
    """Opens the parts of a space, the cheapest checks first.

    Args:
        stack: Closes the parts in reverse order, also after a failed start.
        metrics: Of the process.
        space: What belongs to the space.
        redis_url: Returns the URL of Redis; called if no store is given.
        engine: The engine to serve; opened from the space, and closed with the rest, if None.
        store: The store to use; opened from the space, and closed with the rest, if None.
        turns: Where its runs take turns with those of other spaces.
        residents: Bounds the memory of the models of all spaces; None if nothing does.

    Raises:
        StartupError: A setting, the policies file, the artefact or Redis cannot be used.
    """
    opening, settings = Opening(stack, metrics, space), space.settings
    policies_file, policies_lane = WatchedFile(space.policies), metrics.file_lane("policies")
    book = PolicyBook(await _first_policies(policies_file, policies_lane))
    loader = Loader(space, metrics, turns, residents)
    own_engine = engine is None
    engine = engine or await loader.open()
    history_cap = max(settings.history_cap or 0, engine.receptive_field)
    store = store or await _open_store(opening, await redis_url(), history_cap)
    rates = rates_for(settings, store, metrics)
    redis = RedisCheck(store, metrics)
    await redis.answers()  # before the first write: a user of Redis without all rights must not half write
    for follow in (redis.run, store.follow):
        spawn(stack, follow)

    shared = await _open_coordination(space, store)
    keeper = PolicyKeeper(book, policies_file, policies_lane, shared.policies)
    guards = open_guards(settings, shared.mode)
    queue = WriteQueue(settings.write_behind_max)
    states = _state_keeper(opening, store, queue, history_cap)
    live_items = await open_live_items(opening, store)
    loader.follow(live_items)
    first = await loader.start(engine, own=own_engine)
    kept = KeptLists(int(settings.answers_mib * 2**20), metrics)
    serving, models, held = await _open_lifecycle(opening, store, shared, loader, first, states, guards, kept)
    experiments = ExperimentKeeper(shared.experiments, held, models, keeper, shared.clock)
    arms, canaries = await open_experiments(opening, store, experiments, serving, book, guards)
    shadows = open_shadows(opening, experiments, arms, canaries, serving, guards, states.history_cap)
    # They follow what operators set, and the policies file; the last one logs what changes.
    for part in (models, keeper, shared.exchange, StateChanges(guards, shared.mode, serving)):
        spawn(stack, part.run)
    recent = RecentRequests()
    write_behind = _open_write_behind(opening, store, queue, states, recent, kept)
    if settings.role == "encode":
        open_stream_encoder(opening, store, states, queue, lambda subject: arms.answers(subject)[0])

    ids = Pseudonyms(settings.hash_user_ids)
    recorder, stream_erasure = _open_recorder(opening, store)
    watch = TrafficWatch(serving, metrics, on=settings.watch)
    spawn(stack, watch.run)
    recommender = _open_recommender(
        opening, store, arms, canaries, states, guards, ids, recorder, watch, shadows, recent, kept
    )
    return SpaceRuntime(
        space=space,
        serving=serving,
        store=store,
        policies=book,
        policy_keeper=keeper,
        models=models,
        experiments=experiments,
        arms=arms,
        canaries=canaries,
        guards=guards,
        mode=shared.mode,
        audit=shared.audit,
        states=states,
        write_behind=write_behind,
        recorder=recorder,
        watch=watch,
        shadows=shadows,
        preview=open_preview(opening, experiments, serving, book, states, guards, recent),
        kept=kept,
        recommender=recommender,
        baskets=Baskets(recommender, arms, ids),
        ingest=Ingest(
            store,
            serving,
            arms.answers,
            write_behind,
            metrics,
            ids,
            recorder,
            stream_erasure,
            watch,
            keep_searches=settings.history_searches,
            keep_sessions=settings.history_sessions,
        ),
        items=open_items(opening, store, live_items, serving),
        features=Features(store, lambda subject: arms.answers(subject)[0], write_behind, metrics, ids),
        redis=redis,
        rates=rates,
        explorer=_open_playground(opening, serving),
    )


async def _first_policies(file: WatchedFile, lane: DiskLane) -> Policies:
    """Reads the policies file. Raises StartupError if it is not valid, or hangs."""

    def read() -> Policies:
        file.changed()  # before the file is read, so that no later change of it is missed
        return policies.load(file.path)

    try:
        first = await lane.run(read)
    except HungFileError:
        raise StartupError(f"{file.path}: the policies file does not answer; does its disk hang?") from None
    file.accept()
    return first


async def _open_store(opening: Opening, url: str, history_cap: int) -> Store:
    """Returns the store of the space."""
    settings = opening.space.settings
    store = await Store.connect(
        StoreSettings(
            url=url,
            prefix=opening.space.key_prefix,
            history_cap=history_cap,
            seen_max=settings.seen_max,
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
    opening.stack.push_async_callback(store.close)
    return store


async def _open_coordination(space: Space, store: Store) -> _Shared:
    """Returns the shared values after a first exchange, so that the first answer already follows them."""
    clock = SharedClock()
    audit = Audit(store, clock)

    def choice(name: str, usable: Callable[[dict[str, Any]], bool]) -> SharedChoice:
        return SharedChoice(store, name, clock, audit, usable=usable, copy=space.copy_of(name))

    mode = ForcedMode(store, clock, audit, copy=space.copy_of("mode"))
    model, policies = choice("model", model_choice.usable), choice("policies", policy_keeper.usable)
    experiments = choice("experiments", document.usable)
    exchange = Exchange(store, (mode, model, policies, experiments), audit, poll_s=space.settings.mode_poll_ms / 1000.0)
    with contextlib.suppress(StoreUnavailable):
        await exchange.once()
    return _Shared(clock, audit, mode, model, policies, experiments, exchange)


def _state_keeper(opening: Opening, store: Store, queue: WriteQueue, history_cap: int) -> StateKeeper:
    """Returns the keeper of the encoder states; what it cannot store at once goes to the queue."""
    settings = opening.space.settings
    return StateKeeper(
        store,
        opening.metrics,
        ProfileCache(int(settings.cache_mib * 2**20)),
        queue,
        history_cap=history_cap,
        catch_up_s=settings.catch_up_timeout_ms / 1000.0,
        h_only=settings.state == "h_only",
    )


async def _open_lifecycle(
    opening: Opening,
    store: Store,
    shared: _Shared,
    loader: Loader,
    first: LoadedModel,
    states: StateKeeper,
    guards: Guards,
    kept: KeptLists,
) -> tuple[Serving, ModelSwitch, HeldModels]:
    """Returns the model in service, its switch, and what is held beside it.

    A model that operators chose before a restart is loaded again.
    """
    space, settings = opening.space, opening.space.settings

    def replaced() -> None:
        states.model_replaced()
        kept.clear()

    serving = Serving(first.model, on_replace=replaced)
    first.serve(serving)
    folders = ModelFolders(space.artifact, opening.metrics.file_lane("models"), settings.artifact_keys)
    busy_s = (settings.deadline_max_ms + settings.catch_up_timeout_ms) / 1000.0

    def keep_only() -> None:
        states.cache.keep_only([serving.model, *held.models])

    def swapped() -> None:
        guards.model_changed()
        held.look()

    held = HeldModels(
        serving,
        ModelAdmission(loader, prepare=nothing_to_prepare, history_cap=states.history_cap),
        folders,
        lambda: in_force(shared.experiments).models,
        opening.metrics,
        bytes_max=int(settings.models_held_mib * 2**20),
        on_close=keep_only,
        busy_s=busy_s,
    )
    models = ModelSwitch(
        first,
        serving,
        ModelAdmission(loader, prepare=states.prepare, history_cap=states.history_cap),
        folders,
        shared.model,
        ReplicaRegistry(store, shared.clock),
        shared.audit,
        opening.metrics,
        on_swap=swapped,
        on_close=keep_only,
        deployed=space.deployed,
        busy_s=busy_s,
    )
    opening.stack.push_async_callback(models.close)
    opening.stack.push_async_callback(held.close)
    await models.follow()
    return serving, models, held


def _open_write_behind(
    opening: Opening, store: Store, queue: WriteQueue, states: StateKeeper, recent: RecentRequests, kept: KeptLists
) -> WriteBehind:
    """Returns the loop that brings the states up to date in the background, and follows erasures."""
    stack = opening.stack

    def forget(subject: Subject) -> None:
        recent.forget(subject)
        kept.forget(subject)

    def checked() -> None:
        profiles = states.cache.profiles()
        kept.keep_only({one.subject: one.record.stamp for one in profiles if one.subject is not None})

    handover = open_handover(opening, store)
    write_behind = WriteBehind(queue, states, store, opening.metrics, on_forget=forget, handover=handover)
    if opening.space.settings.role != "encode":  # which stores what it encodes before it takes more
        stack.push_async_callback(write_behind.drain, opening.space.settings.drain_timeout_s)
        spawn(stack, write_behind.run)
    spawn(stack, Erasures(store, write_behind, states, on_checked=checked).run)
    return write_behind


def _open_recorder(opening: Opening, store: Store) -> tuple[Recorder, StreamErasure]:
    """Returns what records lists and events in the background, and what erases subjects from the record."""
    settings = opening.space.settings
    recorded = RecorderSettings(
        on=settings.exposures,
        share=settings.exposures_share,
        shards=settings.exposures_shards,
        cap=settings.exposures_cap,
        queue_max=settings.exposures_queue_max,
    )
    recorder = Recorder(store.streams, opening.metrics, recorded)
    opening.stack.push_async_callback(recorder.drain, settings.drain_timeout_s)
    spawn(opening.stack, recorder.run)
    stream_erasure = StreamErasure(store.streams, recorder, recorded, erased=store.pages.erased)
    spawn(opening.stack, stream_erasure.run)
    return recorder, stream_erasure


def _open_recommender(
    opening: Opening,
    store: Store,
    arms: Arms,
    canaries: CanaryWatch,
    states: StateKeeper,
    guards: Guards,
    ids: Pseudonyms,
    recorder: Recorder,
    watch: TrafficWatch,
    shadows: Shadows,
    recent: RecentRequests,
    kept: KeptLists,
) -> Recommender:
    settings = opening.space.settings
    pages = Pages(store.pages, arms, ids, recorder, opening.metrics, ttl_s=settings.cursor_ttl_s)
    reasons = Reasons(states.history_cap)
    opening.stack.callback(reasons.close)
    return Recommender(
        arms,
        canaries,
        states,
        guards,
        opening.metrics,
        ids,
        reasons,
        recorder,
        watch,
        shadows,
        recent,
        pages,
        kept,
        budget_ms=settings.deadline_ms,
        budget_max_ms=settings.deadline_max_ms,
    )


def _open_playground(opening: Opening, serving: Serving) -> Explorer | None:
    """Returns what the playground page needs, None if it is off."""
    if not opening.space.settings.playground:
        return None
    explorer = Explorer(serving)
    opening.stack.callback(explorer.close)
    spawn(opening.stack, explorer.run)
    return explorer
