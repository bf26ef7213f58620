"""What users do with a list: they look from the top, tire of what they have seen, and click on what they like. Pure.

P(click) = examination(position) × attraction(user, item) × fatigue(user, item). Given what the user has seen, clicks
are independent: the click model that `model/online/estimators.py` assumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests.simulator.world import World
from service.artifact.array_types import BoolArray, Float64Array, FloatArray, IntArray
from service.common.atomic_files import naming, write_aside

# An item that was shown once attracts so much less; a visit later, so much of the tiredness is left.
TIRED, KEPT = 0.9, 0.8


def examination(k: int) -> Float64Array:
    """Returns the probability that a user looks at each of `k` positions: 1 ÷ log₂(position + 1)."""
    return np.asarray(1.0 / np.log2(np.arange(k) + 2.0))


@dataclass(slots=True)
class Visit:
    """What a user did with a list.

    Attributes:
        number: How many lists the user had seen before.
        clicked: [n] which items were clicked.
        chance: [n] how probable each click was.
    """

    number: int
    clicked: BoolArray
    chance: Float64Array


class People:
    """The users of a world, and what they have seen. Different users may visit in different threads.

    Args:
        world: What they like.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        shape = world.shape
        self._seen: FloatArray = np.zeros((shape.users, shape.items), np.float32)
        self.visits: IntArray = np.zeros(shape.users, np.int64)
        """[users] lists that each user has seen."""

    def visit(self, user: int, items: IntArray, phase: int) -> Visit:
        """Shows a list to a user, who remembers it. The same user, list and number of visits make the same clicks.

        Args:
            user: Number of the user.
            items: [n] numbers of the items, from the top.
            phase: Before or after the drift.
        """
        number = int(self.visits[user])
        chance = self.chance(user, items, phase)
        rng = np.random.default_rng((self.world.shape.seed, 2, user, number))
        self._seen[user] *= KEPT
        self._seen[user, items] += 1.0
        self.visits[user] = number + 1
        return Visit(number, rng.random(len(items)) < chance, chance)

    def chance(self, user: int, items: IntArray, phase: int) -> Float64Array:
        """Returns [n] how probable clicks on a list are; see `visit`."""
        fatigue = TIRED ** self._seen[user, items]
        return np.asarray(examination(len(items)) * self.world.attraction(user, items, phase) * fatigue)

    def save(self, file: Path) -> None:
        """Writes what users have seen."""
        import io

        buffer = io.BytesIO()
        np.savez_compressed(buffer, seen=self._seen, visits=self.visits)
        write_aside(file, buffer.getvalue())

    def load(self, file: Path) -> None:
        """Reads what `save` wrote.

        Raises:
            ValueError: The file is of another world.
        """
        with naming(file), np.load(file, allow_pickle=False) as kept:
            if kept["seen"].shape != self._seen.shape:
                raise ValueError(f"{file} is of a world of another size")
            self._seen[:], self.visits[:] = kept["seen"], kept["visits"]
