"""Users whose lists are alike, for tests of experiments: how often each returns, and how readily each clicks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.experiments.sums import Sums


@dataclass(frozen=True, slots=True)
class Traffic:
    """Traffic of an experiment of two arms.

    Attributes:
        users: Users that may come.
        lists_per_hour: Lists in an hour, of both arms together, on average.
        hours: Hours that the experiment runs.
        click_through: Click-through of the control.
        alike: Beta dispersion of the users' click-through: the smaller, the more alike are the lists of a user.
        activity: Standard deviation of the logarithm of how often users come.
        share: Share of the second arm.
    """

    users: int = 20_000
    lists_per_hour: int = 300
    hours: int = 14 * 24
    click_through: float = 0.1
    alike: float = 8.0
    activity: float = 1.0
    share: float = 0.5


class Experiment:
    """One experiment, hour by hour.

    Args:
        traffic: Its traffic.
        effect: Relative change of the click-through in the second arm.
        seed: Seed of everything that is drawn.
    """

    def __init__(self, traffic: Traffic, effect: float, seed: int) -> None:
        self._rng = rng = np.random.default_rng((19, seed))
        self._traffic, n = traffic, traffic.users
        rates = rng.beta(traffic.click_through * traffic.alike, (1 - traffic.click_through) * traffic.alike, n)
        weights = np.exp(traffic.activity * rng.standard_normal(n))
        self._upto = np.cumsum(weights) / weights.sum()
        self._arm = rng.random(n) < traffic.share
        self._rates = np.where(self._arm, rates * (1.0 + effect), rates)
        self._lists = np.zeros(n, np.int64)
        self._clicked = np.zeros(n, np.int64)
        self.sums = (Sums(), Sums())
        """What the control and the other arm earned so far."""

    @property
    def lists(self) -> int:
        """Lists shown so far, of both arms."""
        return sum(one.lists for one in self.sums)

    def hour(self) -> None:
        """Shows an hour's lists."""
        self.show(int(self._rng.poisson(self._traffic.lists_per_hour)))

    def show(self, lists: int) -> None:
        """Shows a number of lists.

        Args:
            lists: Of both arms together.
        """
        users = np.searchsorted(self._upto, self._rng.random(lists), side="right").clip(max=len(self._upto) - 1)
        clicked = users[self._rng.random(lists) < self._rates[users]]
        came, where = np.unique(users, return_inverse=True)
        before = self._lists[came], self._clicked[came]
        self._lists[came] += np.bincount(where, minlength=len(came))
        np.add.at(self._clicked, clicked, 1)
        after = self._lists[came], self._clicked[came]
        arms = self._arm[came]
        self.sums = (
            _plus(self.sums[0], before, after, ~arms),
            _plus(self.sums[1], before, after, arms),
        )


Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _plus(sums: Sums, before: Pairs, after: Pairs, chosen: npt.NDArray[np.bool_]) -> Sums:
    """The sums after the pairs of the chosen users have changed: `Sums.with_subject`, for many at once."""
    (n, c), (m, d) = ((lists[chosen], clicked[chosen]) for lists, clicked in (before, after))
    return Sums(
        sums.subjects + int(np.sum(n == 0)),
        sums.lists + int(np.sum(m - n)),
        sums.clicked + int(np.sum(d - c)),
        sums.lists2 + int(np.sum(m * m - n * n)),
        sums.clicked2 + int(np.sum(d * d - c * c)),
        sums.cross + int(np.sum(m * d - n * c)),
    )
