"""What counts as worse, and the verdict. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deploy.loop.gate.latency import Latency
from deploy.loop.gate.measures import Calibration, ColdStart, Pair


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate may lose.

    Attributes:
        quality: Share of the champion's figure. More is refused if chance does not explain it: the 95 % interval of the
            paired difference is below 0.
        sure: Whether the lower end of the interval must be within the limit as well, so that doubt refuses.
        calibration: Growth of the expected calibration error.
        latency: Median, as a multiple of the champion's, beyond chance.
        size: Bytes, as a multiple of the champion's.
        overlap: Least share of the champion's first ten that the candidate must keep.
        questions: Fewest held-out questions on which a verdict may rest.
    """

    quality: float = 0.02
    sure: bool = False
    calibration: float = 0.05
    latency: float = 1.25
    size: float = 1.5
    overlap: float = 0.05
    questions: int = 100

    def to_json(self) -> dict[str, Any]:
        """Returns the limits."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was measured; `size` is megabytes of candidate and champion."""

    questions: int
    quality: Mapping[str, Pair]
    calibration: tuple[Calibration, Calibration]
    latency: Latency
    size: tuple[float, float]
    overlap: float
    cold: ColdStart


def faults(found: Figures, limits: Limits) -> list[str]:
    """Returns why a candidate is refused, in words; empty if it may replace the champion."""
    return [*_too_little(found, limits), *_of_lists(found, limits), *_of_cost(found, limits)]


def _too_little(found: Figures, limits: Limits) -> Iterator[str]:
    if found.questions < limits.questions:
        yield f"only {found.questions:,} questions are held out; a verdict needs {limits.questions:,}"


def _of_lists(found: Figures, limits: Limits) -> Iterator[str]:
    for name, pair in found.quality.items():
        yield from _lost(name, pair, limits)
    yield from _lost("recall@10 of new users", found.cold.new_users, limits)
    ours, theirs = found.calibration
    if ours.error - theirs.error > limits.calibration:  # NaN compares as false: nobody was answered
        grows = f"from {theirs.error:.3f} to {ours.error:.3f}"
        yield f"the calibration error grows {grows}, by more than {limits.calibration:g}"
    if found.overlap < limits.overlap:
        yield f"lists have {found.overlap:.0%} of the champion's items, less than {limits.overlap:.0%}"
    if found.cold.asked and not found.cold.listed:
        yield f"none of the {found.cold.new_items:,} new items is listed, although {found.cold.asked:,} were taken"


def _lost(name: str, pair: Pair, limits: Limits) -> Iterator[str]:
    if pair.interval is None or math.isnan(pair.champion):
        return
    allowed, interval = -limits.quality * pair.champion, pair.interval
    if interval.difference < allowed and interval.high < 0:
        falls = f"from {pair.champion:.4f} to {pair.candidate:.4f} ({interval.low:+.4f} … {interval.high:+.4f})"
        yield f"{name} falls {falls}, by more than {limits.quality:.0%}"
    elif limits.sure and interval.low < allowed:
        yield f"{name} may fall by {-interval.low:.4f}, which is more than {limits.quality:.0%} of {pair.champion:.4f}"


def _of_cost(found: Figures, limits: Limits) -> Iterator[str]:
    if found.latency.ratio > limits.latency and found.latency.interval.low > 0:
        yield f"a list takes {found.latency.ratio:.2f} times as long, more than {limits.latency:g}"
    ours, theirs = found.size
    if ours > limits.size * theirs:
        yield f"the artefact has {ours:.1f} MB, more than {limits.size:g} times the champion's {theirs:.1f}"
