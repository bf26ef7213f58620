"""Chooses a list under limits whose sets are given as places, which is how the slow references state them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from service.artifact.array_types import Float64Array, IntArray
from service.rules.limits import UNLIMITED, Limit
from service.rules.selection import Candidates, Gain, Selection, choose
from service.rules.terms import Mark, Need, Terms, set_number


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


def select(problem: Problem, k: int, gain: Gain | None = None) -> Selection:
    """Chooses a list under limits whose sets are given as places.

    Args:
        problem: Candidates and what the list must obey.
        k: Its length; it is shorter only if there are fewer candidates.
        gain: What ranks the candidates at each position; None: their keys do.
    """
    sets: list[list[int]] = [[] for _ in problem.keys]
    named = [0] * len(sets)
    bit, first, needs = [], [], []
    for number, limit in enumerate(problem.limits):
        bit.append(limit.bit)
        first.append(limit.first)
        if limit.low > 0:
            needs.append(Need(number, limit.bit, limit.low, limit.first))
        for place in limit.members:
            if limit.high < UNLIMITED:
                sets[place].append(number)
            named[place] |= (limit.low > 0) << number
    groups: dict[int, frozenset[int]] = {}
    for number, apart in enumerate(problem.groups, len(bit)):
        bit.append(apart.bit)
        first.append(apart.first)
        groups[number] = frozenset(set_number(number, group) for group in apart.of_place.values())
        for place, group in apart.of_place.items():
            sets[place].append(set_number(number, group))
    terms = Terms(
        bit=bit,
        first=first,
        high=[*(limit.high for limit in problem.limits), *(UNLIMITED for _ in problem.groups)],
        groups=groups,
        needs=needs,
        upper=problem.upper,
        never=frozenset(number for number, limit in enumerate(problem.limits) if limit.high < 1),
        ends=frozenset(first),
        lenient=False,
    )
    keys, stage = problem.keys, problem.stage
    alike: dict[Mark, Mark] = {}
    marks = [alike.setdefault(mark, mark) for mark in (Mark(tuple(of), n) for of, n in zip(sets, named, strict=True))]
    order = np.lexsort((-keys, stage)).tolist()
    return choose(Candidates(keys.tolist(), stage.tolist(), marks, order, gain), terms, k, problem.pins)
