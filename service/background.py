"""Work that must not delay an answer: a bounded set of tasks, none of them lost or left unobserved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from service import logs
from service.errors import ServiceError

log = logs.get(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


class Background:
    """Runs at most `most` tasks at once, and one at a time for each key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: dict[Any, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, key: Any, work: Work) -> bool:
        """Starts `work()` unless the set is full or `key` is under way; says whether it did."""
        if len(self._tasks) >= self._most or key in self._tasks:
            return False
        self._tasks[key] = asyncio.get_running_loop().create_task(self._observed(key, work))
        return True

    async def _observed(self, key: Any, work: Work) -> None:
        try:
            await work()
        except ServiceError as error:
            log.debug("background_task_failed", reason=error.reason)
        except Exception as error:
            log.error("background_task_broke", **logs.where(error))
        finally:
            del self._tasks[key]

    async def close(self, timeout_s: float) -> None:
        """Waits up to `timeout_s`, then cancels what is left."""
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
