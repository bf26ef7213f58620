"""Background tasks that are restarted when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from service.common import logs

log = logs.get(__name__)

_PAUSE_S = 1.0
# A task that has not ended this long after it was cancelled is cancelled again.
_PATIENCE_S = 2.0

Work = Callable[[], Coroutine[Any, Any, None]]


def spawn(stack: AsyncExitStack, work: Work) -> None:
    """Runs `work` as a task until the stack is closed. If it raises, the error is logged and it is started again.

    Args:
        stack: Cancels the task when it is closed.
        work: Returns the coroutine to run.
    """
    task = asyncio.create_task(_watched(work))

    async def stop() -> None:
        while not task.done():  # what it awaits may swallow the CancelledError, see `being_cancelled`
            task.cancel()
            await asyncio.wait((task,), timeout=_PATIENCE_S)

    stack.push_async_callback(stop)


async def _watched(work: Work) -> None:
    while True:
        try:
            await work()
        except Exception as error:
            log.critical("background_loop_broke", **logs.where(error))
            if being_cancelled():  # it failed while it was stopped: it must not begin anew
                return
        await asyncio.sleep(_PAUSE_S)


def being_cancelled() -> bool:
    """Returns whether this task is being cancelled, even if what it awaited has swallowed the CancelledError.

    `asyncio.wait_for` may do so before Python 3.12 (cpython #86296), and redis-py waits with it.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
