"""Filters are prepared once, off the event loop, and a bounded number is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import pytest

from service.artifact.array_types import BoolArray
from service.artifact.item_filters import Filters, filter_key
from service.lifecycle.filter_cache import FilterCache
from tests.support.aio import asynchronous


@pytest.fixture
def thread() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Work:
    """Counts what was computed; `go` holds it."""

    def __init__(self) -> None:
        self.masks: list[Filters] = []
        self.ids: list[Filters] = []
        self.go = threading.Event()
        self.go.set()

    def allowed(self, filters: Filters) -> BoolArray | None:
        if "colour" in filters:
            raise ValueError("unknown filter field 'colour'")
        self.masks.append(filters)
        return None if "everything" in filters else np.array([len(self.masks)], np.int64) > 0

    def engine_id(self, filters: Filters) -> int:
        self.go.wait(10.0)
        self.ids.append(filters)
        return len(self.ids)


def test_equal_filters_have_one_key_whatever_their_order() -> None:
    one = filter_key({"category": ["a", "b"], "brand": ("x",)})
    assert one == filter_key({"brand": ["x"], "category": ["b", "a", "a"]})
    assert one != filter_key({"category": ["a"], "brand": ["x"]})


def test_a_filter_is_prepared_once_however_many_wait(thread: Executor) -> None:
    @asynchronous
    async def check() -> None:
        work = Work()
        cache = FilterCache(work.allowed, work.engine_id, thread)
        equal = ({"category": ["a", "b"]}, {"category": ["b", "a"]})
        assert await asyncio.gather(*(cache.engine_id(filters, 10.0) for filters in equal)) == [1, 1]
        masks = [await cache.mask(filters) for filters in equal]
        assert masks[0] is masks[1] is not None
        assert await cache.mask({"everything": ["a"]}) is await cache.mask({"everything": ["a"]}) is None
        assert (len(work.masks), len(work.ids)) == (2, 1)

    check()


def test_a_filter_that_is_late_is_ready_for_a_later_request(thread: Executor) -> None:
    @asynchronous
    async def check() -> None:
        work = Work()
        work.go.clear()
        cache = FilterCache(work.allowed, work.engine_id, thread)
        with pytest.raises(TimeoutError):
            await cache.engine_id({"category": ["a"]}, 0.0)
        impatient = asyncio.ensure_future(cache.engine_id({"category": ["a"]}, 10.0))
        await asyncio.sleep(0)
        impatient.cancel()
        work.go.set()
        assert await cache.engine_id({"category": ["a"]}, 10.0) == 1
        assert len(work.ids) == 1

    check()


def test_a_failure_reaches_every_waiter_and_is_not_kept(thread: Executor) -> None:
    @asynchronous
    async def check() -> None:
        work = Work()
        cache = FilterCache(work.allowed, work.engine_id, thread)
        results = await asyncio.gather(*(cache.mask({"colour": ["red"]}) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["unknown filter field 'colour'"] * 3
        with pytest.raises(ValueError, match="colour"):
            await cache.mask({"colour": ["red"]})

    check()


def test_a_bounded_number_of_filters_is_kept_and_another_catalogue_begins_without_any(thread: Executor) -> None:
    @asynchronous
    async def check() -> None:
        work = Work()
        cache = FilterCache(work.allowed, work.engine_id, thread)
        for number in range(129):
            await cache.mask({"category": [str(number)]})
        await cache.mask({"category": ["128"]})
        assert len(work.masks) == 129
        await cache.mask({"category": ["0"]})
        assert len(work.masks) == 130
        await cache.over(work.allowed).mask({"category": ["128"]})
        assert len(work.masks) == 131

    check()
