"""A service in this process to which random things happen between two equal requests, and a twin that keeps no list.

The twin is a recommender over the same parts: the same histories, models, policies, arms and clock. Both answer each
request, and their answers must be the same but for the ids and the time of the answer. What happens goes through the
parts of the service that do it in production, some of it past this process, as another replica would do it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from loadtests.engine.random_requests import Requests
from service.answers.kept_lists import KeptLists
from service.api.runtime import Runtime
from service.app import create_app
from service.artifact.artifact import Artifact
from service.catalogue.assembly import Assembly, Build
from service.catalogue.updates_file import Updates
from service.common.request_context import RequestContext
from service.engine.engine import Engine
from service.exposures.recorder import Recorder, RecorderSettings
from service.guard.guard import ModeName
from service.history.pseudonyms import Pseudonyms
from service.lifecycle.loader import LoadedModel, Loader
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.recommend.pages import Pages
from service.recommend.reasons import Reasons
from service.recommend.recent_requests import RecentRequests
from service.recommend.recommender import Recommender
from service.schemas.parsing import parse
from service.schemas.recommend_request import RecommendRequest
from service.schemas.user_requests import EventsRequest, MergeRequest
from service.settings.service_settings import DEFAULT_POLICIES, Settings
from service.store.records import NewEvent, Subject
from service.store.redis.embedded_valkey import EmbeddedValkey
from service.store.store import Store
from service.store.store_settings import StoreSettings
from service.watch.traffic_watch import TrafficWatch

# Encoding a history event by event, or at once, rounds the state in other places.
_ROUNDING = 1e-3
# What differs between two answers with the same list.
_OF_THE_ANSWER = ("list_id", "latency_ms", "cursor")
_BUDGET_MS = 60_000.0
# Events that a log keeps: few, so that it is trimmed.
_HISTORY = 40
_SECONDS = (0.5, 20.0, 90.0, 1500.0, 3700.0, 90_000.0)


@dataclass
class MovingClock:
    """Epoch seconds that move only when they are told to."""

    now: float = 1_760_000_000.0

    def __call__(self) -> float:
        """Returns the time."""
        return self.now


@dataclass
class Found:
    """What came of interleavings.

    Attributes:
        interleavings: How many there were.
        answers: Answers that were compared.
        hits: Those of them whose list was kept.
        stale: Those of them that differ, each with the request and what had happened.
        happened: How often each thing happened.
    """

    interleavings: int = 0
    answers: int = 0
    hits: int = 0
    stale: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)


@dataclass
class _Stocked:
    """A model with the items that are out of stock."""

    model: ServedModel
    exported: Artifact
    assembly: Assembly
    out: frozenset[str] = frozenset()


class Interleavings:
    """Makes random things happen between equal requests, and compares the answers.

    Args:
        runtime: A running service, which follows no file of items.
        others: Engines of other models, between which it switches.
        elsewhere: A second connection to its Redis, as another replica has it.
        seed: Of all that is drawn.
    """

    def __init__(self, runtime: Runtime, others: Sequence[Engine], elsewhere: Store, seed: int) -> None:
        self._runtime, self._space, self._others, self._elsewhere = runtime, runtime.space, others, elsewhere
        self._rng, self._clock = random.Random(seed), MovingClock()  # noqa: S311 - repeatable, not secret
        self._models: list[_Stocked] = []
        self._loaded: list[LoadedModel] = []
        self._requests = Requests(runtime.space.model, self._rng, self._clock)
        self._kept = self._recommender(runtime.space.kept, runtime.space.recorder, runtime.space.watch)
        silent = Metrics()
        off = Recorder(runtime.space.store.streams, silent, RecorderSettings(on=False))
        self._twin = self._recommender(KeptLists(0, silent), off, TrafficWatch(runtime.space.serving, silent, on=False))
        self.found = Found()

    async def open(self) -> None:
        """Starts the other models, and puts the first policies in force."""
        await self._policies()
        loader = Loader(self._space.space, Metrics())
        self._loaded = [await loader.start(engine, own=False) for engine in self._others]
        for model in (self._space.model, *(one.model for one in self._loaded)):
            exported = model.engine.artifact
            assert isinstance(exported, Artifact)  # noqa: S101 - those of an Engine are
            self._models.append(_Stocked(model, exported, Assembly(exported)))

    async def close(self) -> None:
        """Ends them."""
        for one in self._loaded:
            await one.close()

    async def run(self, interleavings: int) -> Found:
        """Makes so many interleavings: a request, one to three things, and the request again."""
        for _ in range(interleavings):
            asked, what = self._requests.any(), list[str]()
            await self._compare(asked, what)
            for _ in range(self._rng.randint(1, 3)):
                name, happen = self._rng.choice(self._things())
                what.append(name)
                self.found.happened[name] += 1
                if self._rng.random() < 0.3:  # while an answer is under way
                    await asyncio.gather(self._ask(self._kept, asked, "meanwhile"), happen())
                else:
                    await happen()
            await self._compare(asked, what)
            self.found.interleavings += 1
        return self.found

    async def _compare(self, asked: Mapping[str, Any], what: Sequence[str]) -> None:
        name = f"r{self.found.answers}"
        kept, was_kept = await self._ask(self._kept, asked, name)
        new, _ = await self._ask(self._twin, asked, name)
        self.found.answers += 1
        self.found.hits += was_kept
        if not same(kept, new):
            self.found.stale.append(f"{orjson.dumps(asked).decode()} after {', '.join(what) or 'nothing'}")

    async def _ask(self, recommender: Recommender, asked: Mapping[str, Any], name: str) -> tuple[dict[str, Any], bool]:
        """The answer less what differs, and whether its list was kept."""
        now = time.monotonic()
        context = RequestContext(name, now, now, time.monotonic)
        body = parse(RecommendRequest, orjson.dumps(asked))
        answer = await recommender.recommend(body, context)
        return {key: value for key, value in answer.items() if key not in _OF_THE_ANSWER}, "kept" in context.facts

    def _things(self) -> Sequence[tuple[str, Callable[[], Awaitable[object]]]]:
        """What may happen. The first of them are as frequent as all others together."""
        often = [("event", self._event), ("event elsewhere", self._event_elsewhere), ("time", self._time)] * 4
        return [
            *often,
            ("erasure", self._erase),
            ("erasure elsewhere", self._erase_elsewhere),
            ("merge", self._merge),
            ("features", self._features),
            ("policies", self._policies),
            ("experiment", self._experiment),
            ("stock", self._stock),
            ("switch", self._switch),
            ("mode", self._mode),
            ("another request", self._another),
        ]

    async def _event(self) -> None:
        events = [self._requests.event() for _ in range(self._rng.randint(1, 3))]
        await self._space.ingest.append(parse(EventsRequest, orjson.dumps({"events": events})))

    async def _event_elsewhere(self) -> None:
        item, now_ms = self._requests.item(), int(self._clock() * 1000.0)
        await self._elsewhere.append(self._subject(), [NewEvent(item, "click", now_ms)])

    async def _time(self) -> None:
        self._clock.now += self._rng.choice(_SECONDS) * self._rng.random()

    async def _erase(self) -> None:
        subject = Subject("user", self._requests.user())
        await self._space.ingest.erase(subject.id)
        if self._space.kept.of(subject):
            self.found.stale.append(f"lists of {subject.tag} after its erasure")

    async def _erase_elsewhere(self) -> None:
        await self._elsewhere.erase(self._subject())

    async def _merge(self) -> None:
        asked = {"session_id": self._requests.session(), "user_id": self._requests.user()}
        await self._space.ingest.merge(parse(MergeRequest, orjson.dumps(asked)))

    async def _features(self) -> None:
        await self._space.features.put("user", self._requests.user(), self._requests.features())

    async def _policies(self) -> None:
        self._space.policies.replace(self._requests.policies())

    async def _experiment(self) -> None:
        self._space.arms.follow(self._requests.experiments())

    async def _stock(self) -> None:
        one = self._rng.choice(self._models)
        items = [one.exported.catalogue.item_ids[n] for n in range(min(60, len(one.exported.catalogue.item_ids)))]
        out = frozenset(self._rng.sample(items, self._rng.randint(0, 20)))
        one.assembly.apply(sorted(out ^ one.out), Updates(out_of_stock=out), {})
        one.out, live = out, one.assembly.live(Build(one.exported))
        model = one.model.over(live)
        await asyncio.to_thread(model.engine.update, live)
        in_service = self._space.serving.model is one.model
        one.model = model
        if in_service:
            self._space.serving.replace(model)

    async def _switch(self) -> None:
        self._space.serving.replace(self._rng.choice(self._models).model)

    async def _mode(self) -> None:
        mode: ModeName = "fallback" if self._space.mode.current() == "auto" and self._rng.random() < 0.3 else "auto"
        await self._space.mode.set(mode, reason="a drill", actor="tester")

    async def _another(self) -> None:
        await self._ask(self._kept, self._requests.any(), "another")

    def _subject(self) -> Subject:
        if self._rng.random() < 0.3:
            return Subject("session", self._requests.session())
        return Subject("user", self._requests.user())

    def _recommender(self, kept: KeptLists, recorder: Recorder, watch: TrafficWatch) -> Recommender:
        """A recommender by the clock of the interleavings, with what others keep of lists."""
        space, metrics, ids = self._space, Metrics(), Pseudonyms(None)
        return Recommender(
            space.arms, space.canaries, space.states, space.guards, metrics, ids,
            Reasons(space.states.history_cap), recorder, watch, space.shadows, RecentRequests(),
            Pages(space.store.pages, space.arms, ids, recorder, metrics, ttl_s=60.0), kept,
            budget_ms=_BUDGET_MS, budget_max_ms=_BUDGET_MS, wall_clock=self._clock,
        )  # fmt: skip


async def interleaved(folder: Path, engines: tuple[Engine, Engine], interleavings: int, seed: int) -> Found:
    """Runs interleavings on a service of its own.

    Args:
        folder: Where its Valkey and its data go.
        engines: Two models, the first one in service.
        interleavings: How many.
        seed: Of all that is drawn.
    """
    server = EmbeddedValkey(folder)
    server.start()
    stored = StoreSettings(
        url=server.url, prefix="answers:", history_cap=_HISTORY, read_timeout_ms=10_000, write_timeout_ms=10_000
    )
    store, elsewhere = Store(stored), Store(stored)
    # A file of its own: the service follows it, and would put it in force again if the one of the tree were touched.
    policies = folder / "policies.yaml"
    policies.write_bytes(DEFAULT_POLICIES.read_bytes())
    settings = Settings(
        data_dir=folder / "data",
        policies=policies,
        deadline_ms=_BUDGET_MS,
        deadline_max_ms=_BUDGET_MS,
        history_cap=_HISTORY,
        watch=False,
        log_level="error",
    )
    app = create_app(settings, engine=engines[0], store=store)
    try:
        async with app.router.lifespan_context(app):
            happening = Interleavings(app.state.runtime, engines[1:], elsewhere, seed)
            await happening.open()
            try:
                return await happening.run(interleavings)
            finally:
                await happening.close()
    finally:
        await elsewhere.close()
        await store.close()
        server.stop()


def same(one: Any, other: Any) -> bool:
    """Returns whether two answers are the same, but for the rounding of their numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= _ROUNDING
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
