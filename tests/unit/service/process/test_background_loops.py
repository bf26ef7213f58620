from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack

import pytest

from service.process import background
from tests.support.aio import asynchronous


@asynchronous
async def test_a_loop_ends_although_what_it_awaits_swallows_the_first_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As redis-py may before Python 3.12."""
    monkeypatch.setattr(background, "_PATIENCE_S", 0.01)
    swallowed = 0

    async def work() -> None:
        nonlocal swallowed
        while True:
            if swallowed:
                await asyncio.Event().wait()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            swallowed += 1

    async with asyncio.timeout(20.0):
        async with AsyncExitStack() as stack:
            background.spawn(stack, work)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert swallowed == 1
