"""What an arm earned, as sums over its subjects from which a click-through and its variance follow. Pure.

A subject's lists are alike, so the subject is the unit: its lists and its clicked lists are a pair (n, c), and the sums
are over these pairs. When a subject is shown another list its old pair is taken out and its new one put in, so the sums
never need to be made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over the subjects of an arm; n are a subject's lists, c those with a click.

    Attributes:
        subjects: Number of subjects.
        lists: Σ n.
        clicked: Σ c.
        lists2: Σ n².
        clicked2: Σ c².
        cross: Σ n·c.
    """

    subjects: int = 0
    lists: int = 0
    clicked: int = 0
    lists2: int = 0
    clicked2: int = 0
    cross: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Self:
        """Returns the sums among counts by name; those that are not there are 0."""
        return cls(**{field.name: int(counts.get(field.name, 0)) for field in fields(cls)})

    def with_subject(self, before: tuple[int, int], after: tuple[int, int]) -> Sums:
        """Returns the sums after a subject's lists and clicked lists have changed.

        Args:
            before: (n, c) so far; (0, 0) for a new subject.
            after: (n, c) from now on.
        """
        (n, c), (m, d) = before, after
        return Sums(
            self.subjects + (m > 0) - (n > 0),
            self.lists + m - n,
            self.clicked + d - c,
            self.lists2 + m * m - n * n,
            self.clicked2 + d * d - c * c,
            self.cross + m * d - n * c,
        )

    @property
    def rate(self) -> float:
        """Click-through: the share of lists with a click."""
        return self.clicked / self.lists if self.lists else 0.0

    @property
    def log_rate_variance(self) -> float:
        """Variance of the logarithm of the click-through, clustered by subject; infinite where nothing is known.

        That of a ratio, linearised: (m ÷ (m − 1)) Σ (c − r·n)² ÷ (Σ n)², with r the click-through, over r². Source:
        Deng, Knoblich and Lu, "Applying the delta method in metric analytics", KDD 2018.
        """
        if self.subjects < 2 or not self.clicked:
            return float("inf")
        rate = self.rate
        squares = self.clicked2 - 2.0 * rate * self.cross + rate * rate * self.lists2
        if squares <= 0.0:
            return float("inf")  # nothing varies, which says nothing of what would
        return squares * self.subjects / (self.subjects - 1) / float(self.clicked) ** 2
