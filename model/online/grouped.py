"""Rates of groups of lists, with 95 % intervals clustered by subject, in bounded memory.

A rate is a ratio of two sums over subjects, what their lists earned and how many these are, because subjects have
different numbers of lists and lists of one subject are alike. Its variance is that of the linearised ratio estimator
over clusters (Cochran, Sampling Techniques, 3rd ed. 1977, ch. 6.3; for online metrics: Deng, Knoblich and Lu, Applying
the delta method in metric analytics, KDD 2018), and the interval uses Student's t with one degree of freedom less than
there are subjects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
from scipy import stats

CONFIDENCE = 0.95
OTHER = "(other)"
_SUMS = ("y", "n", "yy", "yn", "nn")


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate and its interval. The ends are None where nothing varies, or where there are fewer than two subjects."""

    value: float
    low: float | None
    high: float | None

    def times(self, factor: float) -> Rate:
        """Returns the rate in another unit."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Rate(self.value * factor, low, high)


def ratio(y: float, n: float, yy: float, yn: float, nn: float, subjects: int, confidence: float = CONFIDENCE) -> Rate:
    """Returns Σy ÷ Σn and its interval.

    Args:
        y: Sum over subjects of what each earned.
        n: Sum over subjects of their lists.
        yy: Sum of the squares of y.
        yn: Sum of the products.
        nn: Sum of the squares of n.
        subjects: Number of subjects.
        confidence: Coverage of the interval.
    """
    value = y / n
    squares = max(0.0, yy - 2 * value * yn + value * value * nn)
    if subjects < 2 or squares <= 1e-12 * max(yy, 1e-300):
        return Rate(value, None, None)
    error = math.sqrt(subjects / (subjects - 1) * squares) / n
    half = float(stats.t.ppf((1 + confidence) / 2, subjects - 1)) * error
    return Rate(value, value - half, value + half)


class GroupSums:
    """Adds up what groups of lists earned, part by part. A subject's lists must all be in one part."""

    def __init__(self, measures: Sequence[str]) -> None:
        """`measures` names the columns of what lists earned."""
        self._measures = list(measures)
        self._sums: pl.DataFrame | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Adds rows.

        Args:
            rows: `group`, `owner`, and a column for each measure; a row for each unit that is counted.
        """
        by_owner = rows.group_by("group", "owner").agg(pl.col(self._measures).sum(), n=pl.len().cast(pl.Float64))
        squares = [
            expression
            for name in self._measures
            for expression in (
                pl.col(name).sum().alias(f"{name}:y"),
                (pl.col(name) ** 2).sum().alias(f"{name}:yy"),
                (pl.col(name) * pl.col("n")).sum().alias(f"{name}:yn"),
            )
        ]
        sums = by_owner.group_by("group").agg(
            *squares, n=pl.col("n").sum(), nn=(pl.col("n") ** 2).sum(), subjects=pl.len()
        )
        if self._sums is not None:
            sums = pl.concat([self._sums, sums]).group_by("group").agg(pl.all().sum())
        self._sums = sums

    def rates(self, confidence: float = CONFIDENCE) -> list[tuple[str, int, int, dict[str, Rate]]]:
        """Returns group, units, subjects, and the rate of each measure; the largest group first, `OTHER` last."""
        if self._sums is None:
            return []
        found = []
        for row in self._sums.sort(["n", "group"], descending=[True, False]).to_dicts():
            rates = {
                name: ratio(
                    row[f"{name}:y"], row["n"], row[f"{name}:yy"], row[f"{name}:yn"], row["nn"], row["subjects"],
                    confidence,
                )
                for name in self._measures
            }  # fmt: skip
            found.append((str(row["group"]), int(row["n"]), int(row["subjects"]), rates))
        return sorted(found, key=lambda group: group[0] == OTHER)


def largest(counts: Iterable[tuple[str, int]], most: int) -> set[str]:
    """Returns the names of the largest groups, at most `most`; ties go by name."""
    ordered = sorted(counts, key=lambda pair: (-pair[1], pair[0]))
    return {name for name, _ in ordered[:most]}
