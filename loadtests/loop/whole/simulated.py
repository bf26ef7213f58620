"""The simulated users, in the order in which they visit. What they have seen is kept, so that visits can go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests.loop.whole.plan import Plan
from loadtests.simulator.past import Click, dataset_of, earlier_clicks
from loadtests.simulator.people import People
from loadtests.simulator.visits import Visitors
from loadtests.simulator.world import AFTER, BEFORE, Shape, World

K = 10


@dataclass(frozen=True, slots=True)
class Stretch:
    """Visits that belong together, as places in the order of all visits: in each round every user visits once.

    Attributes:
        begin: The first.
        end: Behind the last.
        phase: Before or after the drift.
        half: Which half of the users visits; None: all do.
    """

    begin: int
    end: int
    phase: int
    half: int | None = None


class Simulated:
    """The users of a plan.

    Args:
        plan: How many there are.
        folder: Where what they have seen is kept.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.world = World(Shape(users=plan.users, items=plan.items, seed=plan.seed))
        self.people = People(self.world)
        self._file, self._folder = folder / "people.npz", folder
        self._half = np.random.default_rng((plan.seed, 5)).permutation(plan.users) % 2

    def before(self, until_ms: int) -> list[Click]:
        """Returns what users clicked before the service began, and writes it as a data set."""
        clicks = list(earlier_clicks(self.people, self.plan.past, K, until_ms))
        dataset_of(self.world, clicks).save(self._folder / "past")
        self.people.save(self._file)
        return clicks

    def load(self) -> None:
        """Takes up what users have seen."""
        self.people.load(self._file)

    def cycle(self, number: int) -> tuple[Stretch, Stretch]:
        """Returns the visits of a cycle, from 1: those before `gpt4rec loop run`, and those that may meet a canary."""
        plan = self.plan
        begin = (plan.past + (number - 1) * plan.lists) * plan.users
        end = begin + plan.lists * plan.users
        phase = AFTER if number > plan.cycles // 2 else BEFORE
        return Stretch(begin, end - plan.users // 2, phase), Stretch(end - plan.users // 2, end, phase)

    def trial(self, number: int) -> Stretch:
        """Returns the visits before the experiment (0), or in it (1).

        Each is made by a random half of the users. So users have seen equally much in both, and what is found of one
        half may be said of the other.
        """
        plan = self.plan
        begin = (plan.past + plan.cycles * plan.lists) * plan.users
        return Stretch(begin, begin + plan.trial * plan.users, AFTER, half=number)

    def visit(self, url: str, stretch: Stretch, tell: Callable[[int, int], None]) -> tuple[int, int]:
        """Makes the visits of a stretch that are left; returns how many these were, and lists from below the model.

        Args:
            url: URL of the service.
            stretch: The visits.
            tell: Called with how many of how many are made.
        """
        left, total = [*self.left(stretch)], self.lists(stretch)

        def told(lists: int) -> None:
            self.people.save(self._file)
            tell(total - len(left) + lists, total)

        try:
            found = Visitors(url, self.people, K).visit(left, stretch.phase, lambda seen: told(seen.lists))
        finally:
            self.people.save(self._file)  # an interruption comes between two savings, when visits under way have ended
        return found.lists, found.below

    def lists(self, stretch: Stretch) -> int:
        """Returns how many lists the visits of a stretch ask for."""
        if stretch.half is None:
            return stretch.end - stretch.begin
        return int((self._half == stretch.half).sum()) * ((stretch.end - stretch.begin) // self.plan.users)

    def left(self, stretch: Stretch) -> Iterator[int]:
        """Yields the users of the visits that are left, in their order."""
        users = self.plan.users
        for number in range(stretch.begin // users, -(-stretch.end // users)):
            order = np.random.default_rng((self.plan.seed, 4, number)).permutation(users)
            inside = order[max(0, stretch.begin - number * users) : stretch.end - number * users]
            if stretch.half is not None:
                inside = inside[self._half[inside] == stretch.half]
            yield from (int(user) for user in inside if self.people.visits[user] <= number)
