"""Tasks that live as long as what they work for, whatever happens in them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from service.common import logs

log = logs.get(__name__)

_PAUSE_S = 1.0

Work = Callable[[], Coroutine[Any, Any, None]]


def spawn(stack: AsyncExitStack, work: Work) -> None:
    """A task until the stack is closed; if it breaks, the log says so and it starts anew."""
    task = asyncio.create_task(_watched(work))

    async def stop() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stop)


async def _watched(work: Work) -> None:
    while True:
        try:
            await work()
        except Exception as error:
            log.critical("background_loop_broke", **logs.where(error))
        await asyncio.sleep(_PAUSE_S)
