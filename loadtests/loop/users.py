"""Users whose lists are alike, for tests of experiments: how often each returns, and how readily each clicks.

Their lists are added up by the code of the sink and of reports, day by day.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from service.experiments.outcomes import ARM, Outcomes, Place, of_arms
from service.experiments.run_subjects import RunSubjects
from service.experiments.sums import Sums

_NAME, _ARMS = "simulated", ("control", "other")


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
        self._subjects = RunSubjects(subjects_most=n)
        self._days: defaultdict[Place, Sums] = defaultdict(Sums)
        self._shown = 0

    @property
    def sums(self) -> tuple[Sums, Sums]:
        """What the control and the other arm earned so far, as a report of the service adds it up."""
        found = of_arms({place: Outcomes(sums) for place, sums in self._days.items()}, _NAME)
        control, other = (found.get(arm, Outcomes()).sums for arm in _ARMS)
        return control, other

    @property
    def lists(self) -> int:
        """Lists shown so far, of both arms."""
        return self._shown

    def hour(self) -> None:
        """Shows an hour's lists."""
        self.show(int(self._rng.poisson(self._traffic.lists_per_hour)))

    def show(self, lists: int) -> None:
        """Shows a number of lists.

        Args:
            lists: Of both arms together.
        """
        users = np.searchsorted(self._upto, self._rng.random(lists), side="right").clip(max=len(self._upto) - 1)
        clicks = self._rng.random(lists) < self._rates[users]
        day = self._shown // (24 * self._traffic.lists_per_hour)
        self._shown += lists
        places = [Place(day, ARM, f"{_NAME}={arm}") for arm in _ARMS]
        earned = [self._days[place] for place in places]
        for user, arm, clicked in zip(users.tolist(), self._arm[users].tolist(), clicks.tolist(), strict=True):
            changed = self._subjects.change(day, places[arm].group, str(user), 1, int(clicked))
            if changed is not None:
                earned[arm] = earned[arm].with_subject(*changed)
        self._days |= zip(places, earned, strict=True)
