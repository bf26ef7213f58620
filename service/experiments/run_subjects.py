"""Lists and clicked lists of each subject of an experiment, over all its days. Pure.

The sums of a day are what that day changed in the sums over the whole experiment. So the sums of all days together are
clustered by subject over the whole experiment, although each day has a field of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

Pair = tuple[int, int]
# Subjects of all experiments together, as a multiple of those of one.
ALL_MOST = 4
# Days without a list after which an experiment is forgotten.
IDLE_DAYS = 2


@dataclass(slots=True)
class _Run:
    pairs: dict[int, Pair] = field(default_factory=dict)
    last_day: int = 0
    full: bool = False


class RunSubjects:
    """Knows the pairs (n, c) of the subjects of experiments.

    It is bounded. The first subjects of an experiment, over all its arms, are told apart, and later ones are left out
    of its figures altogether, so that neither the shares of the arms nor the variance are distorted. Where all
    experiments together have too many, the figures of the one that changed the longest ago stay as they are. Subjects
    are known by a hash alone.
    """

    def __init__(self, *, subjects_most: int) -> None:
        """Creates it without subjects.

        Args:
            subjects_most: Subjects of one experiment that are told apart; of all together four times as many.
        """
        self._most = subjects_most
        # The experiment that changed last comes last.
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._all = 0
        self._left_out = 0

    def change(self, day: int, group: str, subject: str, lists: int, clicked: int) -> tuple[Pair, Pair] | None:
        """Changes what a subject has in an arm.

        Args:
            day: The day of the list.
            group: `<experiment>=<arm>`.
            subject: The subject.
            lists: Lists to add; below 0 to take out.
            clicked: Clicked lists to add; below 0 to take out.

        Returns:
            (n, c) before and after, for `Sums.with_subject`; None if the subject is not told apart.
        """
        experiment = group.partition("=")[0]
        run = self._runs.setdefault(experiment, _Run())
        self._runs.move_to_end(experiment)
        run.last_day = max(run.last_day, day)
        key = hash((group, subject))
        before = run.pairs.get(key)
        if before is None:
            if lists <= 0 or not self._has_room(run):
                self._left_out += lists > 0
                return None
            self._all += 1
            before = (0, 0)
        # A pair of zeros stays: a list is taken out and added again whenever it changes.
        after = run.pairs[key] = (before[0] + lists, before[1] + clicked)
        return before, after

    def forget_idle(self, today: int) -> None:
        """Forgets the experiments without a list today and on the two days before."""
        for name in [name for name, run in self._runs.items() if run.last_day < today - IDLE_DAYS]:
            self._all -= len(self._runs.pop(name).pairs)

    def take_left_out(self) -> int:
        """Returns how often a list was left out since the last call."""
        left_out, self._left_out = self._left_out, 0
        return left_out

    def _has_room(self, run: _Run) -> bool:
        # An experiment that was full once stays so: a subject that was left out is not told apart from some list on.
        run.full = run.full or len(run.pairs) >= self._most
        if run.full:
            return False
        if self._all >= ALL_MOST * self._most:
            oldest = next(one for one in self._runs.values() if one.pairs)
            self._all -= len(oldest.pairs)
            oldest.pairs, oldest.full = {}, True
        return True
