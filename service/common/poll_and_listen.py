"""Keeps something current that Redis announces: messages for quick news, and a poll for what they missed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from service.common.errors import StoreUnavailable

Messages = Callable[[], AsyncGenerator[bytes, None]]


async def poll_and_listen(
    look: Callable[[], Awaitable[object]], messages: Messages, *, poll_s: float, retry_share: float
) -> None:
    """Looks after every message, and whenever a pause without one is over, until cancelled.

    Args:
        look: Reads what has changed. It may raise StoreUnavailable.
        messages: Yields a message after every change, and may miss some. It may raise StoreUnavailable.
        poll_s: The pause, in seconds; after it a subscription that ended is begun again too.
        retry_share: Share of the pause after a look that failed.
    """
    changed = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_poll(look, changed, poll_s, retry_share))
        group.create_task(_listen(messages, changed, poll_s))


async def _poll(look: Callable[[], Awaitable[object]], changed: asyncio.Event, poll_s: float, share: float) -> None:
    while True:
        changed.clear()
        pause_s = poll_s
        try:
            await look()
        except StoreUnavailable:
            pause_s *= share
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await changed.wait()


async def _listen(messages: Messages, changed: asyncio.Event, poll_s: float) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable):
            async with contextlib.aclosing(messages()) as announced:
                async for _ in announced:
                    changed.set()
        await asyncio.sleep(poll_s)
