"""Keeps the shared values current: a subscription for quick news, and a poll for what it missed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from service.common.errors import StoreUnavailable
from service.common.poll_and_listen import poll_and_listen
from service.coordination.audit import Audit
from service.coordination.shared_value import SharedValue

# After a failed exchange the next one comes sooner, after this share of the pause.
_RETRY_SHARE = 0.25


class ChangesStore(Protocol):
    """The part of `service.store.store.Store` that the exchanges need."""

    def shared_changes(self) -> AsyncGenerator[bytes, None]:
        """Yields a message after every published change; may miss some. Raises StoreUnavailable."""
        ...


class Exchange:
    """Exchanges all shared values and the pending audit entries with Redis.

    Args:
        store: Redis.
        values: The shared values; every exchange hears Redis's clock with them.
        audit: The audit, whose pending entries are written.
        poll_s: Pause between two exchanges without news, in seconds.
    """

    def __init__(
        self, store: ChangesStore, values: Sequence[SharedValue[Any]], audit: Audit, *, poll_s: float = 0.5
    ) -> None:
        self._store, self._values, self._audit, self._poll_s = store, values, audit, poll_s

    async def once(self) -> None:
        """Exchanges everything once, the audit last: a Redis that is full still says what other replicas changed.

        Raises:
            StoreUnavailable: Redis does not answer, or does not accept an entry of the audit.
        """
        refreshed = 0
        try:
            for value in self._values:
                await value.refresh()
                refreshed += 1
        except StoreUnavailable:
            for value in self._values[refreshed:]:
                value.away()
            raise
        await self._audit.write_pending()

    async def run(self) -> None:
        """Keeps the values current until cancelled."""
        await poll_and_listen(self.once, self._store.shared_changes, poll_s=self._poll_s, retry_share=_RETRY_SHARE)
