"""What a list is chosen from, and what it must obey, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.artifact.array_types import Float64Array, IntArray

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


class Groups(NamedTuple):
    """Groups of which only one may stand in the first positions.

    Attributes:
        bit: 1 << n of their rule.
        of_place: Group of each candidate that is in one.
        first: So many first positions.
    """

    bit: int
    of_place: Mapping[int, int]
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Candidates and what a list of them must obey.

    Attributes:
        keys: [n] float64 what ranks the candidates.
        stage: [n] candidates of a lower stage come first, whatever their keys.
        limits: The limits.
        groups: The groups.
        pins: Place of the candidate at each pinned position.
        upper: Mask of the rules that more candidates may help to keep.
    """

    keys: Float64Array
    stage: IntArray
    limits: Sequence[Limit] = ()
    groups: Sequence[Groups] = ()
    pins: Mapping[int, int] = field(default_factory=dict)
    upper: int = 0
