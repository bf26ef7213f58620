"""Opens the parts of one space in the order in which they need each other, and connects them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from service.access.rate_limits import rates_for
from service.answers.kept_lists import KeptLists
from service.api.runtime import SpaceRuntime
from service.assembly.coordination import first_policies, open_coordination
from service.assembly.experiments import open_experiments, open_guards, open_preview, open_shadows
from service.assembly.items import open_items, open_live_items
from service.assembly.lifecycle import open_lifecycle
from service.assembly.opening import Opening
from service.assembly.roles import open_handover, open_stream_encoder
from service.batching.run_scheduler import NO_TURNS, StageTurns
from service.common.watched_file import WatchedFile
from service.engine.interface import EngineLike
from service.experiments.arms import Arms
from service.experiments.canary_watch import CanaryWatch
from service.experiments.keeper import ExperimentKeeper
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
from service.lifecycle.loader import Loader
from service.lifecycle.resident_models import ResidentModels
from service.lifecycle.serving import Serving
from service.metrics.service_metrics import Metrics
from service.ops.state_changes import StateChanges
from service.playground.explorer import Explorer
from service.policies.policies import PolicyBook
from service.policies.policy_keeper import PolicyKeeper
from service.process.background import spawn
from service.recommend.baskets import Baskets
from service.recommend.pages import Pages
from service.recommend.reasons import Reasons
from service.recommend.recent_requests import RecentRequests
from service.recommend.recommender import Recommender
from service.recommend.shadows import Shadows
from service.settings.space import Space
from service.store.health import RedisCheck
from service.store.records import Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from service.watch.traffic_watch import TrafficWatch


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
    book = PolicyBook(await first_policies(policies_file, policies_lane))
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

    shared = await open_coordination(space, store)
    keeper = PolicyKeeper(book, policies_file, policies_lane, shared.policies)
    guards = open_guards(settings, shared.mode)
    queue = WriteQueue(settings.write_behind_max)
    states = _state_keeper(opening, store, queue, history_cap)
    live_items = await open_live_items(opening, store)
    loader.follow(live_items)
    first = await loader.start(engine, own=own_engine)
    kept = KeptLists(int(settings.answers_mib * 2**20), metrics)
    serving, models, held = await open_lifecycle(opening, store, shared, loader, first, states, guards, kept)
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
