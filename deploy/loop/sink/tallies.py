"""What lists earned, by day and group, while events still come in. Pure.

Lists of subjects that click faster than people do count for no experiment.

Days are those of the lists, UTC: yesterday and today, and those before of which only experiments are counted. Groups
are bounded: a dimension that has `GROUPS_MOST` in a day calls every further group of that day `(other)`. Names are
known by the day, so that those of models and experiments that are gone make room.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.loop.sink.open_list import OpenList
from model.online.grouped import OTHER
from model.online.online_report import ALL, ARM, DIMENSIONS, POSITION
from service.experiments.outcomes import Outcomes
from service.experiments.run_subjects import RunSubjects
from service.experiments.sums import Sums

GROUPS_MOST = 200
POSITIONS_MOST = 50
DAY_MS = 86_400_000
_NONE = "(none)"
# Dimensions whose subjects are told apart: those of arms over the whole experiment, the others' within a day.
CLUSTERED = (ALL, "model", ARM)

Key = tuple[str, str]


@dataclass(slots=True)
class _Group:
    """The figures of a group of one day; `pairs` are lists and clicked lists of each subject."""

    figures: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    sums: Sums = field(default_factory=Sums)
    pairs: dict[str, tuple[int, int]] = field(default_factory=dict)


class Tallies:
    """Adds up what lists earn. A list is taken out before it changes, and added again afterwards.

    Attributes:
        first_day: The first day that figures are kept of, as a number of days since the epoch.
        whole_from: Of lists of earlier days only the arms are counted.
        runs: Subjects of experiments, which are told apart over all days.
        unnamed: Lists by dimension whose group had to be called `(other)`.
    """

    def __init__(self, *, subjects_most: int) -> None:
        """Creates empty tallies.

        Args:
            subjects_most: Subjects that a group of a day tells apart; each further list counts as one of its own. Also
                the subjects of an experiment; those beyond are left out of its figures.
        """
        self._most = subjects_most
        self._days: dict[int, dict[Key, _Group]] = {}
        self._known: dict[int, defaultdict[str, set[str]]] = {}
        self.first_day = self.whole_from = 0
        self.runs = RunSubjects(subjects_most=subjects_most)
        self.unnamed: Counter[str] = Counter()

    def groups_of(self, row: Mapping[str, Any]) -> tuple[Key, ...]:
        """Returns the groups that a list counts for, besides its positions."""
        day = row["time_ms"] // DAY_MS
        whole = day >= self.whole_from
        named = [(name, str(row.get(column) or _NONE)) for name, column in DIMENSIONS.items()] if whole else []
        named += [(ARM, f"{arm['experiment']}={arm['arm']}") for arm in row.get("arms") or ()]
        groups = (self._bounded(day, dimension, group) for dimension, group in named)
        return ((ALL, ALL), *groups) if whole else tuple(groups)

    def add(self, one: OpenList) -> None:
        """Counts a list as it is now."""
        self._change(one, 1)

    def remove(self, one: OpenList) -> None:
        """Takes a list out as it is now."""
        self._change(one, -1)

    def days(self) -> list[int]:
        """Returns the days that there are figures of, as numbers of days since the epoch."""
        return sorted(self._days)

    def outcomes(self, day: int) -> dict[Key, Outcomes]:
        """Returns the figures of a day by dimension and group."""
        return {key: _outcomes(key[0], group) for key, group in self._days.get(day, {}).items()}

    def together(self) -> dict[Key, Outcomes]:
        """Returns the figures of all days together of which everything is counted."""
        sums: dict[Key, Outcomes] = {}
        for day in [one for one in self._days if one >= self.whole_from]:
            for key, found in self.outcomes(day).items():
                sums[key] = sums.get(key, Outcomes()) + found
        return sums

    def forget_before(self, day: int) -> None:
        """Forgets the days before a day, and what still comes of them."""
        self.first_day = day
        for by_day in (self._days, self._known):
            for old in [one for one in by_day if one < day]:
                del by_day[old]
        self.runs.forget_idle(day + 1)

    def _bounded(self, day: int, dimension: str, group: str) -> Key:
        if day < self.first_day:
            return dimension, group  # it is not counted
        known = self._known.setdefault(day, defaultdict(set))[dimension]
        if group not in known:
            if len(known) >= GROUPS_MOST:
                self.unnamed[dimension] += 1
                return dimension, OTHER
            known.add(group)
        return dimension, group

    def _change(self, one: OpenList, sign: int) -> None:
        day = one.time_ms // DAY_MS
        if day < self.first_day:
            return
        groups = self._days.setdefault(day, {})
        by_position = one.by_position()
        whole: defaultdict[str, float] = defaultdict(float)
        for earned in by_position.values():
            for name, value in earned.items():
                whole[name] += value
        whole |= {"lists": 1, "viewed": one.viewed, "clicked": whole["clicks"] > 0}
        for key in one.groups:
            if key[0] == ARM and one.made:
                continue
            group = groups.setdefault(key, _Group())
            if key[0] == ARM:
                changed = self.runs.change(day, key[1], one.cluster, sign, sign * int(whole["clicked"]))
                if changed is None:
                    continue
                group.sums = group.sums.with_subject(*changed)
            elif key[0] in CLUSTERED:
                self._change_pair(group, one.cluster, int(whole["clicked"]), sign)
            _add(group.figures, whole, sign)
        for place in one.positions.values() if day >= self.whole_from else ():
            name = str(place) if place <= POSITIONS_MOST else OTHER
            earned = by_position.get(place, {})
            group = groups.setdefault((POSITION, name), _Group())
            _add(group.figures, {**earned, "lists": 1, "clicked": earned.get("clicks", 0)}, sign)

    def _change_pair(self, group: _Group, subject: str, clicked: int, sign: int) -> None:
        known = subject in group.pairs
        if not known and (sign < 0 or len(group.pairs) >= self._most):
            pair = (1, clicked)
            before, after = ((0, 0), pair) if sign > 0 else (pair, (0, 0))
            group.sums = group.sums.with_subject(before, after)
            return
        before = group.pairs.get(subject, (0, 0))
        after = (before[0] + sign, before[1] + sign * clicked)
        group.sums = group.sums.with_subject(before, after)
        if after[0] > 0:
            group.pairs[subject] = after
        else:
            del group.pairs[subject]


def _add(figures: defaultdict[str, float], more: Mapping[str, float], sign: int) -> None:
    for name, value in more.items():
        figures[name] += sign * value


def _outcomes(dimension: str, group: _Group) -> Outcomes:
    counts = {name: value for name, value in group.figures.items() if name not in ("lists", "clicked")}
    if dimension in CLUSTERED:
        return Outcomes(group.sums, **counts)
    return Outcomes(Sums(lists=round(group.figures["lists"]), clicked=round(group.figures["clicked"])), **counts)
