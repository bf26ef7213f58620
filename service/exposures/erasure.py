"""Deletes a subject from the streams of lists and events, and tells their readers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import orjson

from service.common import logs
from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.exposures.exposure import erased_entry, shard_of, subject_name
from service.exposures.recorder import Recorder, RecorderSettings
from service.store.records import Subject
from service.store.streams.log_streams import STREAMS, LogStreams, Shard

log = logs.get(__name__)

# Another replica may write what it had queued before the erasure. It does so long before this time, unless Redis is
# away; and whatever comes later, readers leave out, because it is older than the erasure.
_AGAIN_S = 1.0
# Erasures that wait for their second turn.
_MOST = 10_000


class StreamErasure:
    """Erases subjects from the streams; start `run` as a background task."""

    def __init__(
        self,
        streams: LogStreams,
        recorder: Recorder,
        settings: RecorderSettings,
        wall_clock: Clock = time.time,
        *,
        erased: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Prepares erasures.

        Args:
            streams: Where entries are.
            recorder: What writes them.
            settings: What is recorded.
            wall_clock: Epoch seconds.
            erased: Told the name of each subject, sessions that became a user's among them.
        """
        self._streams, self._recorder, self._settings = streams, recorder, settings
        self._wall_clock, self._erased = wall_clock, erased
        self._again: dict[str, None] = {}
        self._added = asyncio.Event()

    async def erase(self, subjects: Sequence[Subject]) -> int:
        """Deletes the entries of subjects, and those of the sessions that became theirs; leaves a word for readers.

        Returns:
            The number of entries deleted.

        Raises:
            StoreUnavailable: Some of them may be deleted. Repeating it deletes the rest.
        """
        names = {subject_name(subject): None for subject in subjects}
        for name in names:
            self._recorder.forget(name)
        counts = await self._streams.shard_counts()
        if not counts and not self._settings.on:
            return 0  # nothing was ever recorded
        deleted, done = 0, set[str]()
        while left := [name for name in names if name not in done]:
            for name in left:
                self._recorder.forget(name)  # of sessions, nobody knew until now
                gone, sessions = await self._delete(name, counts)
                deleted += gone
                names |= dict.fromkeys(sessions)
                done.add(name)
                await self._tell(name)
        self._later(names)
        return deleted

    async def run(self) -> None:
        """Erases once more, a moment later, until cancelled."""
        while True:
            await self._added.wait()
            await asyncio.sleep(_AGAIN_S)
            self._added.clear()
            await self._repeat()  # a function of its own, whose end forgets the names

    async def _repeat(self) -> None:
        names, self._again = self._again, {}
        try:
            counts = await self._streams.shard_counts()
            for name in names:
                await self._delete(name, counts)
        except StoreUnavailable as error:
            log.warning("erasures_wait", subjects=len(names), reason=error.reason)
            self._later(names)

    async def _delete(self, name: str, counts: Iterable[int]) -> tuple[int, list[str]]:
        """Returns the number of entries deleted, and the sessions that were merged into the subject."""
        deleted, sessions = 0, list[str]()
        for shard in sorted({shard_of(name, count) for count in (*counts, self._settings.shards)}):
            for stream in STREAMS:
                gone, merged = await self._streams.erase(Shard(stream, shard), name)
                deleted += gone
                sessions += [session for session in map(_session_of, merged) if session is not None]
        return deleted, sessions

    async def _tell(self, name: str) -> None:
        """Leaves an entry in both streams: everything of the subject up to now must be forgotten."""
        if self._erased is not None:
            await self._erased(name)
        now_ms, shard = int(self._wall_clock() * 1000.0), shard_of(name, self._settings.shards)
        await self._recorder.announce()
        shards = [Shard(stream, shard) for stream in STREAMS]
        await self._streams.tell_erased(shards, erased_entry(name, now_ms), name, now_ms)

    def _later(self, names: Iterable[str]) -> None:
        self._again |= dict.fromkeys(names)
        while len(self._again) > _MOST:
            log.warning("erasure_not_repeated", detail="too many erasures at a time: readers leave out what is older")
            del self._again[next(iter(self._again))]
        self._added.set()


def _session_of(merged: bytes) -> str | None:
    """The session of an entry; None if this service did not write it."""
    try:
        return str(orjson.loads(merged)["from"])
    except (ValueError, LookupError, TypeError):
        return None
