"""Ids of lists: ULIDs, 26 characters that sort by time (https://github.com/ulid/spec)."""

from __future__ import annotations

import os
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Two characters for each 10 bits.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_RANDOM_BYTES = 10
_TIME_MAX_MS = 2**48 - 1


class ListIds:
    """Makes ids that grow from one to the next, also within a millisecond and when the clock is set back."""

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        """Makes ids; `random` returns a number of random bytes."""
        self._random = random
        self._ms = -1
        self._time = ""
        self._tail = 0

    def new(self, now_ms: int) -> str:
        """Returns the next id.

        Args:
            now_ms: The time, in epoch milliseconds.
        """
        if now_ms > self._ms:
            self._ms, self._time = now_ms, _time_part(now_ms)
            # The first bit stays free, so that counting up within a millisecond never overflows.
            self._tail = int.from_bytes(self._random(_RANDOM_BYTES), "big") >> 1
        else:
            self._tail += 1
        return self._time + _text_of(self._tail, 8)


def time_of(list_id: str) -> int:
    """Returns when an id was made, in epoch milliseconds.

    Raises:
        ValueError: It is not a ULID.
    """
    if len(list_id) != 26 or not set(list_id) <= set(_ALPHABET):
        raise ValueError("not a ULID: 26 characters of Crockford's base 32 are expected")
    ms = 0
    for character in list_id[:10]:
        ms = 32 * ms + _ALPHABET.index(character)
    return ms


def _time_part(ms: int) -> str:
    return _text_of(min(ms, _TIME_MAX_MS), 5)


def _text_of(number: int, pairs: int) -> str:
    """A number of 10 bits for each pair of characters."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(10 * pairs - 10, -1, -10)])
