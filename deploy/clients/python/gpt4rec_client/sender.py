"""The thread that sends what waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from gpt4rec_client.errors import ClientError
from gpt4rec_client.events import Event, Outbox


class Sender:
    """Sends the events of a queue in batches, from a thread that starts with the first event.

    Args:
        outbox: The queue.
        store: Sends a batch; raises ClientError if the service did not accept it.
    """

    def __init__(self, outbox: Outbox, store: Callable[[list[Event]], Any]) -> None:
        self._outbox, self._store = outbox, store
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._hurrying, self._closed = 0, False

    def __len__(self) -> int:
        with self._changed:
            return len(self._outbox)

    def add(self, event: Event) -> bool:
        """Adds an event; False if there is no room.

        Raises:
            RuntimeError: The client is closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gpt4rec-events", daemon=True)
                self._thread.start()
            added = self._outbox.add(event)
            if self._outbox.full or len(self._outbox) == 1:
                self._changed.notify_all()
            return added

    def flush(self, within_s: float) -> int:
        """Sends what waits without waiting for more; returns how many events are left after `within_s` seconds."""
        until = time.monotonic() + within_s
        with self._changed:
            self._hurrying += 1
            self._changed.notify_all()
            while (left := len(self._outbox)) and (time_left := until - time.monotonic()) > 0:
                self._changed.wait(time_left)
            self._hurrying -= 1
        return left

    def belongs(self, session_id: str, user_id: str) -> None:
        """Gives what waits of a session to a user."""
        with self._changed:
            self._outbox.belongs(session_id, user_id)

    def forget(self, user_id: str, within_s: float) -> None:
        """Drops what waits of a user. What a call carries has arrived when this returns, or is not sent again."""
        with self._changed:
            carried = self._outbox.forget(user_id)
        if carried:
            self.flush(within_s)

    def close(self, within_s: float) -> int:
        """Sends what waits, then ends; returns how many events had to be dropped."""
        self.flush(within_s)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._outbox.abandon()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._store(batch)
            except ClientError as error:
                with self._changed:
                    self._outbox.refused(error)
                    self._changed.notify_all()
            else:
                with self._changed:
                    self._outbox.accepted()
                    self._changed.notify_all()

    def _next(self) -> list[Event] | None:
        """Waits until a batch is due, and returns it; None once the client is closed."""
        with self._changed:
            while not self._closed:
                due_in = self._outbox.due_in(now=self._hurrying > 0)
                if due_in == 0.0:
                    return self._outbox.take()
                self._changed.wait(due_in)
            return None
