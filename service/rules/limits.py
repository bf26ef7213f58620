"""A limit over a set of candidates that are given by their places."""

from __future__ import annotations

from typing import NamedTuple

# More than any list has.
UNLIMITED = 1 << 30


class Limit(NamedTuple):
    """How many items of a set may, or must, stand in the first positions.

    Attributes:
        bit: 1 << n of its rule: a larger one has precedence.
        members: Places of the set's candidates.
        first: So many first positions.
        low: The fewest items.
        high: The most items.
    """

    bit: int
    members: frozenset[int]
    first: int
    low: int = 0
    high: int = UNLIMITED
