"""New filters are built once, off the event loop, within rations and within the deadline of who asks."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.artifact.items.catalogue import Catalogue
from service.artifact.items.filter_conditions import Filters
from service.artifact.items.item_filters import ItemFilter, filter_key
from service.artifact.trie import Trie
from service.common.deadline import Deadline
from service.common.errors import FilterNotReady
from service.engine.decode.filters import FilterTable, Mask
from service.lifecycle.filter_builds import FilterBuilds
from service.lifecycle.filter_ration import FilterRation
from service.metrics.service_metrics import Metrics, value_of
from tests.support.aio import asynchronous
from tests.support.clock import FakeClock
from tests.support.fakes import CATEGORIES, ITEMS, N_ITEMS

CATALOGUE = Catalogue.of(ITEMS)


class HeldUp(FilterTable):
    """Masks whose building `go` holds, and which `fails` breaks."""

    def __init__(self) -> None:
        super().__init__(Trie.build(np.arange(N_ITEMS)[:, None]), CATALOGUE)
        self.go = threading.Event()
        self.go.set()
        self.built: list[Filters] = []
        self.fails = False

    def build(self, values: Filters, owner: str = "") -> Mask:
        self.go.wait(20.0)
        self.built.append(values)
        if self.fails:
            raise MemoryError
        return super().build(values, owner)


def builds(masks: FilterTable, thread: Executor, ration: FilterRation | None = None) -> tuple[FilterBuilds, Metrics]:
    metrics = Metrics(CollectorRegistry())
    return FilterBuilds(lambda: masks, ration or FilterRation(1.0), metrics, thread), metrics


def wanted(*categories: str) -> ItemFilter:
    return CATALOGUE.filter({"category": categories})


def soon() -> Deadline:
    return Deadline.after(20.0)


def every_two() -> list[ItemFilter]:
    return [wanted(one, other) for one in CATEGORIES for other in CATEGORIES if one < other]


def test_equal_filters_have_one_key_whatever_their_order() -> None:
    one = filter_key({"category": ["a", "b"], "brand": ("x",)})
    assert one == filter_key({"brand": ["x"], "category": ["b", "a", "a"]})
    assert one != filter_key({"category": ["a"], "brand": ["x"]})


@asynchronous
async def test_a_filter_is_built_once_however_many_wait_and_whatever_unknown_values_it_has() -> None:
    with ThreadPoolExecutor(1) as thread:
        masks = HeldUp()
        ready, metrics = builds(masks, thread)
        asked = [ready.ready(wanted("War", f"z{n}"), "a", soon()) for n in range(50)]
        found = await asyncio.gather(*asked)
        assert await ready.ready(wanted("War"), "b", soon()) is found[0]
        assert {id(mask) for mask in found} == {id(found[0])}
        assert masks.built == [{"category": ("War",)}]
        assert value_of(metrics.catalogue.filter_builds, "built") == value_of(metrics.catalogue.filters_held) == 1
        assert value_of(metrics.catalogue.filter_bytes) == masks.usage.bytes > 0


@asynchronous
async def test_a_filter_that_is_late_is_ready_for_a_later_request() -> None:
    with ThreadPoolExecutor(1) as thread:
        masks = HeldUp()
        masks.go.clear()
        ready, metrics = builds(masks, thread)
        with pytest.raises(FilterNotReady):
            await ready.ready(wanted("War"), "a", Deadline.after(0.0))
        impatient = asyncio.ensure_future(ready.ready(wanted("War"), "a", soon()))
        await asyncio.sleep(0)
        impatient.cancel()
        masks.go.set()
        assert (await ready.ready(wanted("War"), "a", soon())).allowed.sum() == N_ITEMS / 4
        assert len(masks.built) == 1
        assert value_of(metrics.catalogue.filter_builds, "late") == 1


@asynchronous
async def test_a_failure_reaches_every_waiter_and_is_not_kept() -> None:
    with ThreadPoolExecutor(1) as thread:
        masks = HeldUp()
        masks.fails = True
        ready, metrics = builds(masks, thread)
        results = await asyncio.gather(
            *(ready.ready(wanted("War"), "a", soon()) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [FilterNotReady] * 3
        masks.fails = False
        assert await ready.ready(wanted("War"), "a", soon())
        assert (
            value_of(metrics.catalogue.filter_builds, "failed")
            == value_of(metrics.catalogue.filter_builds, "built")
            == 1
        )


@asynchronous
async def test_who_asks_for_too_much_is_refused_and_others_are_not() -> None:
    """The builder stands still, so nothing that one caller sends can be worked off."""
    with ThreadPoolExecutor(1) as thread:
        masks = HeldUp()
        masks.go.clear()
        ration = FilterRation(1.0, FakeClock())
        ready, metrics = builds(masks, thread, ration)
        for _ in range(100):
            ration.begin("greedy")  # charges what a build is expected to take before it is known
        refused = await asyncio.gather(
            *(ready.ready(one, "greedy", soon()) for one in every_two()), return_exceptions=True
        )
        assert [type(one) for one in refused] == [FilterNotReady] * 6
        waiting = asyncio.ensure_future(ready.ready(wanted("Drama"), "modest", soon()))
        await asyncio.sleep(0)
        masks.go.set()
        assert (await waiting).allowed.sum() == N_ITEMS / 4
        assert masks.built == [{"category": ("Drama",)}]
        assert value_of(metrics.catalogue.filter_builds, "refused_caller") == 6


@asynchronous
async def test_a_bounded_number_of_filters_waits() -> None:
    with ThreadPoolExecutor(1) as thread:
        masks = HeldUp()
        masks.go.clear()
        ready, metrics = builds(masks, thread)
        brands = Catalogue.of([replace(item, brand=f"b{n}") for n, item in enumerate(ITEMS)])
        asked = [
            asyncio.ensure_future(ready.ready(brands.filter({"brand": [f"b{n}"]}), f"caller {n % 10}", soon()))
            for n in range(40)
        ]
        await asyncio.sleep(0)
        assert value_of(metrics.catalogue.filter_builds, "refused_total") == 8
        masks.go.set()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, FilterNotReady) for result in results) >= 8
        assert len(masks.built) <= 32


def test_a_ration_is_processor_time_and_comes_back() -> None:
    clock = FakeClock()
    ration = FilterRation(0.2, clock)
    spent = 0
    while ration.refusal("greedy") is None:
        ration.end("greedy", ration.begin("greedy"), 0.02)
        spent += 1
    assert spent == 25, "half a second is saved up for one caller"
    assert ration.refusal("greedy") == "caller"
    assert ration.refusal("modest") is None
    clock.advance(1.0)
    again = 0
    while ration.refusal("greedy") is None:
        ration.end("greedy", ration.begin("greedy"), 0.02)
        again += 1
    assert again == pytest.approx(5, abs=1), "a tenth of a core in the long run"
    for number in range(1000):
        if ration.refusal(f"address {number}") == "total":
            break
        ration.end(f"address {number}", ration.begin(f"address {number}"), 0.02)
    assert number < 50, "many callers together have no more than the total"
    clock.advance(5.0)
    assert ration.refusal("modest") is None
