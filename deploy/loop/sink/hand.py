"""What was read and is in no file yet: bounded by the sink, which stops reading when there is enough."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.common.deadline import Clock
from service.store.streams.log_streams import Shard
from service.store.streams.stream_group import StreamEntry


@dataclass(frozen=True, slots=True)
class Taken:
    """An entry, and whether an earlier reader had been given it, so that a file may have it already."""

    entry: StreamEntry
    again: bool


class Hand:
    """Entries by shard, each once, in the order of their stream.

    Attributes:
        entries: Number of entries.
        bytes: About how much memory they take.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._by_shard: dict[Shard, dict[str, Taken]] = {}
        self._since: float | None = None
        self.entries = self.bytes = 0

    @property
    def age_s(self) -> float:
        """How long the oldest of them has waited."""
        return 0.0 if self._since is None else self._clock() - self._since

    @property
    def by_shard(self) -> Mapping[Shard, list[Taken]]:
        """The entries of each shard that has any."""
        return {shard: list(some.values()) for shard, some in self._by_shard.items()}

    def ids(self) -> dict[Shard, list[str]]:
        """Returns the ids of the entries of each shard."""
        return {shard: list(some) for shard, some in self._by_shard.items()}

    def take(self, shard: Shard, entries: Iterable[StreamEntry], *, again: bool) -> list[StreamEntry]:
        """Adds entries, and returns those that were not there."""
        held, new = self._by_shard.setdefault(shard, {}), []
        for entry in entries:
            if entry.id not in held:
                held[entry.id] = Taken(entry, again)
                new.append(entry)
                self.bytes += entry.bytes
        self.entries += len(new)
        if self.entries and self._since is None:
            self._since = self._clock()
        return new

    def clear(self) -> None:
        """Forgets all of them: they are safe, or somebody else's."""
        self._by_shard.clear()
        self._since, self.entries, self.bytes = None, 0, 0
