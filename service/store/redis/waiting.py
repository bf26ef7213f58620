"""Waiting for turns and for replies until a deadline, without cancelling what is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from service.common.errors import StoreUnavailable

# Turns of the event loop granted to an overdue reply: its bytes may have arrived without having been read.
_GRACE_TURNS = 8


async def taken(name: str, turns: Sequence[asyncio.Semaphore], deadline: float, timeout_s: float) -> None:
    """Takes a turn of each, or none; raises StoreUnavailable at the deadline."""
    had = []
    try:
        for turn in turns:
            if turn.locked():
                async with asyncio.timeout_at(deadline):
                    await turn.acquire()
            else:
                await turn.acquire()  # does not wait
            had.append(turn)
    except BaseException as error:
        for turn in had:
            turn.release()
        if not isinstance(error, TimeoutError):
            raise
        detail = f"{name}: no connection became free within {timeout_s:.3f} s"
        raise StoreUnavailable(detail, cause="timeout") from None


def from_now(seconds: float) -> float:
    """Returns the time of the event loop in so many seconds."""
    return asyncio.get_running_loop().time() + seconds


def overdue(reply: asyncio.Future[Any], turns: int = _GRACE_TURNS) -> None:
    """Fails a reply that did not arrive in time."""
    if reply.done():
        return
    if turns:  # a loop that lags fires its timers before it reads the sockets
        reply.get_loop().call_soon(overdue, reply, turns - 1)
    else:
        reply.set_exception(StoreUnavailable("EVALSHA: no reply in time", cause="timeout"))


async def in_time(name: str, awaited: asyncio.Future[Any], deadline: float) -> None:
    """Waits until a future is done, without cancelling it; raises StoreUnavailable at the deadline."""
    await asyncio.wait((awaited,), timeout=deadline - asyncio.get_running_loop().time())
    for _ in range(_GRACE_TURNS):
        if awaited.done():
            return
        # A loop that lags fires its timers before it reads the sockets.
        await asyncio.sleep(0)
    if not awaited.done():
        raise StoreUnavailable(f"{name}: no reply in time", cause="timeout")
