"""Lists and clicked lists of each subject of an experiment, over all its days. Pure.

The sums of a day are what that day changed in the sums over the whole experiment. So the sums of all days together are
clustered by subject over the whole experiment, although each day has a field of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Pair = tuple[int, int]
# Subjects of all experiments together, as a multiple of those of one.
_ALL_MOST = 4


@dataclass(slots=True)
class _Run:
    pairs: dict[int, Pair] = field(default_factory=dict)
    last_day: int = 0


class RunSubjects:
    """Knows the pairs (n, c) of the subjects of experiments.

    It is bounded: the first subjects of an experiment, over all its arms, are told apart, and later ones are left out
    of its sums altogether, so that neither the shares of the arms nor the variance are distorted. Subjects are known
    by a hash alone.

    Attributes:
        untold: Lists that were left out for want of room.
    """

    def __init__(self, *, subjects_most: int) -> None:
        """Creates it without subjects.

        Args:
            subjects_most: Subjects of one experiment that are told apart.
        """
        self._most = subjects_most
        self._runs: dict[str, _Run] = {}
        self._all = 0
        self.untold = 0

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
        run = self._runs.get(experiment)
        if run is None:
            if lists <= 0:
                return None
            run = self._runs[experiment] = _Run()
        key = hash((group, subject))
        before = run.pairs.get(key)
        if before is None:
            if lists <= 0:
                return None
            if len(run.pairs) >= self._most or self._all >= _ALL_MOST * self._most:
                self.untold += 1
                return None
            self._all += 1
            before = (0, 0)
        # A pair of zeros stays: a list is taken out and added again whenever it changes.
        after = run.pairs[key] = (before[0] + lists, before[1] + clicked)
        run.last_day = max(run.last_day, day)
        return before, after

    def forget_before(self, day: int) -> None:
        """Forgets the experiments without a list since a day."""
        for name in [name for name, run in self._runs.items() if run.last_day < day]:
            self._all -= len(self._runs.pop(name).pairs)
