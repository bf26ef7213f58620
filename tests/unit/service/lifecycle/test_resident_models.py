"""Models of several spaces in bounded memory: who makes room, who is opened again, and what runs find meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from service.artifact.features import NO_EVENTS
from service.common.errors import ModelEvicted
from service.engine.encoder_state import EncoderState
from service.engine.jobs import EncodeJob
from service.engine.live_catalogue import LiveCatalogue
from service.lifecycle.evictable_engine import EvictableEngine, Footprint
from service.lifecycle.resident_models import ResidentModels
from service.metrics.service_metrics import Metrics
from tests.support.aio import asynchronous, eventually
from tests.support.clock import FakeClock
from tests.support.fakes import FakeArtifact, FakeEngine

JOB = EncodeJob(events=NO_EVENTS, from_start=True)
NOTHING = Footprint(0, 0)


class Shop:
    """A space with a model, and how its engine was opened."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        self.name, self.metrics, self.busy = name, Metrics(), False
        self.fault: Exception | None = None
        self.engines = [FakeEngine()]
        self.engine = EvictableEngine(self.engines[0], self.opened, NOTHING, clock)

    def opened(self) -> FakeEngine:
        if self.fault is not None:
            raise self.fault
        self.engines.append(FakeEngine())
        return self.engines[-1]

    def runs(self) -> bool:
        return isinstance(self.engine.encode([JOB])[0], EncoderState)

    async def adopted(self, models: ResidentModels, nbytes: int = 10) -> None:
        await models.adopt(self.engine, space=self.name, nbytes=nbytes, busy=lambda: self.busy, metrics=self.metrics)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


async def until(holds: Callable[[], bool]) -> None:
    async def condition() -> bool:
        return holds()

    await eventually(condition, 20.0)


class Looks:
    """Counts how often it was looked in vain whether a model can be opened, and lets the next look come at once."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, _: float) -> None:
        self.count += 1
        await asyncio.sleep(0)


async def street(models: ResidentModels, clock: FakeClock, names: str = "abc") -> list[Shop]:
    shops = []
    for name in names:
        clock.advance(1.0)
        shops.append(Shop(name, clock))
        await shops[-1].adopted(models)
    return shops


@asynchronous
async def test_the_least_recently_used_model_makes_room_and_is_opened_again_when_it_is_asked_for() -> None:
    clock = FakeClock()
    models = ResidentModels(20, stays_s=0.0, clock=clock)
    a, b, c = await street(models, clock)
    assert [shop.engine.evicted for shop in (a, b, c)] == [True, False, False]
    assert models.nbytes == 20
    assert a.engines[0].closed
    clock.advance(1.0)
    assert b.runs()
    clock.advance(1.0)
    a.engine.want()
    await until(lambda: a.count("gpt4rec_model_reopenings_total", outcome="opened") == 1.0)
    assert [shop.engine.evicted for shop in (a, b, c)] == [False, False, True]
    assert len(a.engines) == 2
    assert a.runs()
    assert (a.count("gpt4rec_model_evictions_total"), a.count("gpt4rec_models_evicted")) == (1.0, 0.0)
    assert (c.count("gpt4rec_model_evictions_total"), c.count("gpt4rec_models_evicted")) == (1.0, 1.0)
    await models.close()


@asynchronous
async def test_many_callers_open_a_model_once() -> None:
    clock = FakeClock()
    models = ResidentModels(10, stays_s=0.0, clock=clock)
    a, b = await street(models, clock, "ab")
    for _ in range(50):
        a.engine.want()
        assert isinstance(a.engine.encode([JOB])[0], ModelEvicted)  # a run that comes too late asks for it, too
    await until(lambda: not a.engine.evicted)
    assert len(a.engines) == 2
    assert b.engine.evicted
    await models.close()


@asynchronous
async def test_a_model_that_was_just_opened_stays() -> None:
    clock = FakeClock()
    looks = Looks()
    models = ResidentModels(20, stays_s=0.5, clock=clock, sleep=looks)
    a, b, c = await street(models, clock)
    clock.advance(1.0)
    a.engine.want()
    await until(lambda: not a.engine.evicted)
    assert (b.engine.evicted, c.engine.evicted) == (True, False)
    c.engine.want()
    b.engine.want()
    before = looks.count
    await until(lambda: looks.count >= before + 10)
    assert b.engine.evicted
    clock.advance(1.0)
    await until(lambda: not b.engine.evicted)
    await models.close()


@asynchronous
async def test_a_model_in_use_makes_room_only_for_one_that_is_asked_for_as_often() -> None:
    clock = FakeClock()
    looks = Looks()
    models = ResidentModels(20, stays_s=0.001, clock=clock, sleep=looks)
    a, b, c = await street(models, clock)
    clock.advance(10.0)
    for _ in range(3):
        b.engine.want()
        c.engine.want()
    a.engine.want()
    await until(lambda: looks.count >= 10)
    assert [shop.engine.evicted for shop in (a, b, c)] == [True, False, False]
    for _ in range(9):
        a.engine.want()
    await until(lambda: not a.engine.evicted)
    assert [b.engine.evicted, c.engine.evicted].count(True) == 1
    await models.close()


@asynchronous
async def test_a_busy_model_is_not_taken_for_one_out_of_use() -> None:
    clock = FakeClock()
    looks = Looks()
    models = ResidentModels(20, stays_s=0.5, clock=clock, sleep=looks)
    a, b, c = await street(models, clock)
    b.busy = True
    clock.advance(10.0)
    a.engine.want()
    await until(lambda: not a.engine.evicted)
    assert (b.engine.evicted, c.engine.evicted) == (False, True)
    await models.close()


@asynchronous
async def test_a_model_that_cannot_be_opened_is_tried_again_later_and_harms_no_other() -> None:
    clock = FakeClock()
    models = ResidentModels(20, stays_s=0.0, clock=clock)
    a, b, c = await street(models, clock)
    a.fault = OSError("the folder is gone")
    a.engine.want()
    await until(lambda: a.count("gpt4rec_model_reopenings_total", outcome="failed") == 1.0)
    assert a.engine.evicted
    assert b.runs() or c.runs()
    a.fault = None
    a.engine.want()
    clock.advance(10.0)
    await until(lambda: not a.engine.evicted)
    await models.close()


@asynchronous
async def test_a_model_larger_than_the_bound_is_served_alone() -> None:
    clock = FakeClock()
    models = ResidentModels(5, stays_s=0.0, clock=clock)
    a, b = await street(models, clock, "ab")
    assert (a.engine.evicted, b.engine.evicted) == (True, False)
    await models.close()


@asynchronous
async def test_a_model_that_is_closed_for_good_is_not_opened_any_more() -> None:
    clock = FakeClock()
    models = ResidentModels(10, stays_s=0.0, clock=clock)
    a = Shop("a", clock)
    resident = await models.adopt(a.engine, space="a", nbytes=10, busy=lambda: False, metrics=a.metrics)
    a.engine.evict()
    models.forget(resident)
    a.engine.want()
    await asyncio.sleep(0)
    assert a.engine.evicted
    assert models.nbytes == 0
    await models.close()


def test_an_engine_is_closed_after_the_runs_under_way() -> None:
    engine = FakeEngine()
    evictable = EvictableEngine(engine, FakeEngine, NOTHING)
    engine.encode_go.clear()
    results: list[Sequence[EncoderState | Exception]] = []
    run = threading.Thread(target=lambda: results.append(evictable.encode([JOB])), daemon=True)
    run.start()
    began = time.monotonic()
    while not engine.encoded:
        assert time.monotonic() - began < 20.0
        time.sleep(0.001)
    evicting = threading.Thread(target=evictable.evict, daemon=True)
    evicting.start()
    evicting.join(0.05)
    assert not engine.closed
    engine.encode_go.set()
    for thread in (run, evicting):
        thread.join(10.0)
    assert isinstance(results[0][0], EncoderState)
    assert engine.closed
    assert evictable.evicted


def test_a_catalogue_that_changed_meanwhile_is_served_when_the_engine_is_opened_again() -> None:
    opened: list[FakeEngine] = []

    class Updated(FakeEngine):
        live: object = None

        def update(self, live: object) -> None:
            self.live = live

    def again() -> FakeEngine:
        opened.append(Updated())
        return opened[-1]

    evictable = EvictableEngine(Updated(), again, NOTHING)
    evictable.evict()
    changed = FakeArtifact()
    live = LiveCatalogue.__new__(LiveCatalogue)
    object.__setattr__(live, "artifact", changed)
    evictable.update(live)
    assert evictable.artifact is changed
    evictable.reopen()
    assert isinstance(opened[0], Updated)
    assert opened[0].live is live


def test_a_closed_engine_holds_no_filters_and_explains_nothing() -> None:
    evictable = EvictableEngine(FakeEngine(), FakeEngine, NOTHING)
    evictable.evict()
    assert evictable.filters.held({}) is None
    assert evictable.filters.usage.held == 0
    assert not evictable.explains
    with pytest.raises(Exception, match="not in memory"):
        evictable.explain(NO_EVENTS, from_start=True)
