"""Hands the users of a file over to the processes that encode, such as behind a change of the encoder.

A new encoder finds no state of any user, and each user's next request encodes their history. What a file of users
hands over is encoded before they ask, by as many processes of the role `encode` as there are. No entry does harm: a
state that is up to date is left alone, and a user without events has nothing to encode.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from service.common.atomic_files import write_aside
from service.common.errors import ServiceError, StoreUnavailable
from service.history.pseudonyms import Pseudonyms
from service.store.streams.encode_stream import Backlog, EncodeStream, Handed

# Users that are handed over together, and pauses while the encoders are behind or Redis is away.
_BATCH = 256
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class UsersFileError(ServiceError):
    """A file of users cannot be used."""


@dataclass(frozen=True)
class Progress:
    """How far a file was handed over.

    Attributes:
        size: Bytes of the file.
        changed_ns: When it was changed.
        offset: Bytes that are done.
        users: Users that are done.
    """

    size: int
    changed_ns: int
    offset: int = 0
    users: int = 0

    @classmethod
    def of(cls, file: Path, kept: Path) -> Progress:
        """Reads how far the file is; from the beginning if it has changed since."""
        try:
            stat = file.stat()
        except OSError as error:
            raise UsersFileError(f"{file} cannot be read: {error.strerror}") from error
        fresh = cls(stat.st_size, stat.st_mtime_ns)
        try:
            told = cls(**json.loads(kept.read_bytes()))
        except (OSError, ValueError, TypeError):
            return fresh
        return told if (told.size, told.changed_ns) == (fresh.size, fresh.changed_ns) else fresh

    def save(self, kept: Path) -> None:
        """Writes it, whole or not at all."""
        write_aside(kept, json.dumps(asdict(self)).encode())


def users_of(file: Path, offset: int = 0) -> Iterator[tuple[str, int]]:
    """Yields the users of a file from a byte on, each with the offset behind its line.

    A line is an id, or an object with a `user_id`, as `gpt4rec data users` writes it. Blank lines are left out.

    Raises:
        UsersFileError: A line is neither.
    """
    with file.open("rb") as lines:
        lines.seek(offset)
        for line in iter(lines.readline, b""):
            try:
                text = line.decode().strip()
                told: Any = json.loads(text)["user_id"] if text.startswith("{") else text
            except (ValueError, KeyError, TypeError) as error:
                raise UsersFileError(f"{file}: the line before byte {lines.tell()} names no user") from error
            if told:
                yield str(told), lines.tell()


async def hand_over_all(
    stream: EncodeStream,
    pseudonyms: Pseudonyms,
    file: Path,
    kept: Path,
    *,
    shards: int,
    cap: int,
    say: Callable[[int], None] = lambda _: None,
) -> int:
    """Hands every user of a file over; goes on where an earlier call was interrupted.

    Waits while the stream holds half of what it may, so that nothing is trimmed.

    Args:
        stream: Where users are handed over.
        pseudonyms: How ids are stored.
        file: The users.
        kept: File that says how far this is.
        shards: Number of shards.
        cap: Entries that a shard keeps.
        say: Called with the number of users so far, after each batch.

    Returns:
        The users that were handed over, also by earlier calls.

    Raises:
        UsersFileError: The file cannot be read.
    """
    progress = Progress.of(file, kept)
    await _patiently(lambda: stream.shard_counts(adding=shards))
    users = users_of(file, progress.offset)
    while batch := list(islice(users, _BATCH)):
        await _room(stream, shards, shards * cap // 2)
        left = [Handed(pseudonyms.named("user", user), "") for user, _ in batch]
        while left:
            left, _ = await _patiently(partial(stream.hand_over, left, shards=shards, cap=cap))
        progress = Progress(progress.size, progress.changed_ns, batch[-1][1], progress.users + len(batch))
        progress.save(kept)
        say(progress.users)
    return progress.users


async def wait_until_encoded(stream: EncodeStream, shards: int) -> None:
    """Waits until the stream is empty."""
    await _room(stream, shards, 1)


async def _room(stream: EncodeStream, shards: int, most: int) -> None:
    while True:
        backlog: Backlog = await _patiently(lambda: stream.backlog(range(shards)))
        if backlog.entries < max(most, 1):
            return
        await asyncio.sleep(_PAUSE_S)


async def _patiently(call: Callable[[], Any]) -> Any:
    """Tries again while Redis is away."""
    pause_s = _PAUSE_S
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(pause_s)
            pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
