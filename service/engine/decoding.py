"""How one list is decoded: the strategy and its parameters, and the beam's width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["beam", "top_p", "temperature", "greedy"]

STRATEGIES: tuple[Strategy, ...] = ("beam", "top_p", "temperature", "greedy")

# A batch runs at one width, so widths come in few sizes.
WIDTH_BUCKETS: tuple[int, ...] = (8, 16, 32, 64, 128)
MAX_WIDTH = WIDTH_BUCKETS[-1]

_ALL_MASS = 2.0
_LEAST_DENSE = 8
# What a list is drawn from, beside the beam: with fewer, lists are more alike; more are seldom drawn.
_DRAWN_FROM = 112


def dense_width(k: int, width: int, *, sampled: bool = False) -> int:
    """How many items by the dense score join a beam of `width` for a list of `k`, in one of two sizes a width, and in
    one where the list is drawn.

    With k of them the list holds whatever the exhaustive score would put there; more than that seldom change it, and
    each costs what a kept node costs.
    """
    if sampled:
        return _DRAWN_FROM
    quarter = max(_LEAST_DENSE, width // 4)
    return quarter if k <= quarter else width


@dataclass(frozen=True, slots=True)
class Decoding:
    """A decoding policy. Greedy is a beam of width 1; the sampled strategies draw without replacement."""

    strategy: Strategy
    beam_width: int = 5
    top_p: float = 0.9
    temperature: float = 1.0

    @property
    def sampled(self) -> bool:
        return self.strategy in ("top_p", "temperature")

    @property
    def nucleus(self) -> float:
        """The probability mass to draw from. Without a nucleus it is more than there is: a sum of float32 reaches 1
        before its last terms, and they belong to the whole as well."""
        return self.top_p if self.strategy == "top_p" and self.top_p < 1.0 else _ALL_MASS

    @property
    def inverse_temperature(self) -> float:
        return 1.0 / self.temperature if self.sampled else 1.0

    def width(self, k: int) -> int:
        """Number of nodes kept at every level for a list of `k`, rounded up to a bucket.

        Only beam pays for more than `k`: drawing k leaves without replacement needs no more than k nodes a
        level (Kool et al., 2019), and where lists are drawn by the blend most candidates are the dense ones.
        """
        wanted = self.beam_width * k if self.strategy == "beam" else k
        wanted = min(MAX_WIDTH, wanted)
        return next(bucket for bucket in WIDTH_BUCKETS if bucket >= wanted)
