"""The messages of one channel, from a connection that is given up when its server falls silent or is replaced."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from service.common.errors import StoreUnavailable
from service.process.background import being_cancelled
from service.store.redis.cluster_client import ClusterClient
from service.store.redis.redis_causes import cause_of

# A subscription that has received nothing for this long, although it was pinged, is replaced.
_SILENT_S = 3.0
_TURN_S = 0.5


async def messages(
    client: Any, channel: str, *, greeting: bool, still_valid: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """Yields the messages of a channel until StoreUnavailable is raised.

    The connection is pinged when it is silent, because one whose peer has vanished would stay silent for ever.

    Args:
        client: The redis-py client.
        channel: The channel to subscribe to.
        greeting: Whether to yield an empty message once the subscription is active. From then on, nothing that is
            published is missed.
        still_valid: Whether the server is still the one to listen to.
    """
    loop = asyncio.get_running_loop()
    pubsub: Any = None
    try:
        pubsub = await client.subscriber() if isinstance(client, ClusterClient) else client.pubsub()
        await pubsub.subscribe(channel)
        received = pinged = loop.time()
        while not being_cancelled():
            message = await pubsub.get_message(ignore_subscribe_messages=not greeting, timeout=_TURN_S)
            if not still_valid():
                raise StoreUnavailable("SUBSCRIBE: another server has taken over", cause="read_only")
            if message is not None:
                received = loop.time()
                if message["type"] == "message":
                    yield message["data"]
                elif message["type"] == "subscribe":
                    yield b""
            elif loop.time() - received > _SILENT_S:
                raise StoreUnavailable(f"SUBSCRIBE: no sign of life in {_SILENT_S:.0f} s", cause="timeout")
            elif loop.time() - max(received, pinged) > _SILENT_S / 3:
                await pubsub.ping()
                pinged = loop.time()
        raise asyncio.CancelledError
    except StoreUnavailable:
        raise
    except Exception as error:  # whatever redis-py raises, also a failure inside it
        cause = cause_of(error)
        raise StoreUnavailable(f"SUBSCRIBE: {type(error).__name__}: {error}", cause=cause) from error
    finally:
        if pubsub is not None:
            with contextlib.suppress(Exception):
                await pubsub.aclose()
