"""What users like: items with categories and an appeal of their own, users with a liking of each category. Pure.

How attractive an item is to a user is a probability: σ(base + liking of its category + appeal). Half-way, tastes
drift: some users come to like other categories, and some items come into fashion or go out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, IntArray

BEFORE, AFTER = 0, 1


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a world is, and how its tastes are spread.

    Attributes:
        users: Users.
        items: Items.
        categories: Categories of the items.
        groups: Groups of users with a common taste.
        base: Log-odds that an item without appeal attracts a user who is indifferent to its category.
        liking: Standard deviation of the groups' likings, in log-odds; those of a user vary by a third of it.
        appeal: Standard deviation of the items' appeals, in log-odds.
        moved: Share of the users who belong to another group after the drift.
        fashion: Share of the items that have another appeal after the drift.
        seed: Seed of everything that is drawn.
    """

    users: int = 800
    items: int = 600
    categories: int = 12
    groups: int = 8
    base: float = -4.5
    liking: float = 1.2
    appeal: float = 1.2
    moved: float = 0.3
    fashion: float = 0.6
    seed: int = 0


class World:
    """Items, users and their tastes, before and after the drift."""

    def __init__(self, shape: Shape, item_ids: Sequence[str] | None = None) -> None:
        """Draws the world; equal shapes make equal worlds.

        Args:
            shape: How large it is.
            item_ids: Names of the items, where a catalogue has them already.
        """
        self.shape = shape
        rng = np.random.default_rng((shape.seed, 1))
        self.category: IntArray = rng.permutation(np.arange(shape.items) % shape.categories)
        """[items] category of each item."""
        self.item_ids = tuple(item_ids or (f"i{number}" for number in range(shape.items)))
        self.user_ids = tuple(f"u{number}" for number in range(shape.users))
        self._appeal = self._appeals(rng)
        self.group: IntArray
        """[users] group of each user before the drift."""
        self.group, self._liking = self._likings(rng)
        self._index = {name: number for number, name in enumerate(self.item_ids)}

    def indices(self, item_ids: list[str]) -> IntArray:
        """Returns the numbers of items."""
        return np.array([self._index[name] for name in item_ids], np.int64)

    def attraction(self, user: int, items: IntArray, phase: int) -> Float64Array:
        """Returns how attractive items are to a user who has not seen them lately.

        Args:
            user: Number of the user.
            items: [n] numbers of items.
            phase: `BEFORE` or `AFTER` the drift.

        Returns:
            [n] probabilities.
        """
        odds = self.shape.base + self._liking[phase, user, self.category[items]] + self._appeal[phase, items]
        return np.asarray(1.0 / (1.0 + np.exp(-odds)))

    def _appeals(self, rng: np.random.Generator) -> Float64Array:
        shape = self.shape
        before = rng.normal(scale=shape.appeal, size=shape.items)
        changes: BoolArray = rng.random(shape.items) < shape.fashion
        return np.stack([before, np.where(changes, rng.normal(scale=shape.appeal, size=shape.items), before)])

    def _likings(self, rng: np.random.Generator) -> tuple[IntArray, Float64Array]:
        shape = self.shape
        of_group = rng.normal(scale=shape.liking, size=(shape.groups, shape.categories))
        own = rng.normal(scale=shape.liking / 3.0, size=(shape.users, shape.categories))
        group = rng.integers(shape.groups, size=shape.users)
        moves: BoolArray = rng.random(shape.users) < shape.moved
        after = np.where(moves, (group + rng.integers(1, max(2, shape.groups), size=shape.users)) % shape.groups, group)
        return group, np.stack([of_group[group] + own, of_group[after] + own])
