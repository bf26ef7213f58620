"""The queue of work behind the answers: histories to encode, and states to store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

from service.history.profile import Profile
from service.lifecycle.served_model import ServedModel
from service.store.records import Subject

V = TypeVar("V")

# Entries taken at a time. Their histories and states are handled on the event loop, at about 0.2 ms each, so there are
# few, unless many wait: a larger batch costs less for each, in round trips and runs of the encoder.
_BATCH, _BATCH_MOST = 16, 64


class WriteQueue:
    """Filled by ingest and by `StateKeeper`, emptied by `WriteBehind`. A subject has at most one entry of each kind.

    Not thread-safe: use it from the event loop only.
    """

    def __init__(self, histories_max: int) -> None:
        """Creates an empty queue that takes at most `histories_max` histories; states are not limited."""
        self._histories_max = histories_max
        self._histories: dict[Subject, ServedModel] = {}
        self._states: dict[Subject, Profile] = {}
        self._added = asyncio.Event()

    def __len__(self) -> int:
        return len(self._histories) + len(self._states)

    def add_history(self, subject: Subject, model: ServedModel) -> bool:
        """Queues a history to be encoded; returns False if the queue is full."""
        if subject not in self._histories and len(self._histories) >= self._histories_max:
            return False
        self._histories[subject] = model
        self._added.set()
        return True

    def add_state(self, profile: Profile) -> None:
        """Queues a profile whose new state must be stored. It replaces an older one of the same subject."""
        assert profile.subject is not None  # noqa: S101 - only states of subjects are stored
        self._states[profile.subject] = profile
        self._added.set()

    def discard(self, subject: Subject) -> None:
        """Removes both entries of a subject."""
        self._histories.pop(subject, None)
        self._states.pop(subject, None)

    async def wait(self) -> None:
        """Waits until something is queued."""
        if not len(self):
            await self._added.wait()
        self._added.clear()

    def take_histories(self) -> dict[Subject, ServedModel]:
        """Removes and returns the oldest histories, one batch at most."""
        return _take(self._histories)

    def take_states(self) -> list[Profile]:
        """Removes and returns the oldest profiles with a state to store, one batch at most."""
        return list(_take(self._states).values())

    def with_state(self) -> list[Subject]:
        """Returns the subjects with a state to store, the oldest first."""
        return list(self._states)

    def take_states_of(self, subjects: Iterable[Subject]) -> list[Profile]:
        """Removes and returns the profiles of these subjects that have a state to store."""
        found = (self._states.pop(subject, None) for subject in subjects)
        return [profile for profile in found if profile is not None]


def _take(waiting: dict[Subject, V]) -> dict[Subject, V]:
    size = min(_BATCH_MOST, max(_BATCH, len(waiting) // 4))
    taken = dict(islice(waiting.items(), size))
    for subject in taken:
        del waiting[subject]
    return taken
