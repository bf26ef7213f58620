"""How a list is decoded: the strategy, its parameters, and how many candidates there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from service.artifact.graphs.run_sizes import RunSizes, Size

Strategy = Literal["beam", "top_p", "temperature", "greedy"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# A batch runs at one width, so there are only a few of them.
WIDTH_BUCKETS: tuple[int, ...] = (8, 16, 32, 64, 128)
MAX_WIDTH = WIDTH_BUCKETS[-1]
# The bucket of each number of nodes.
_BUCKET_OF = [next(bucket for bucket in WIDTH_BUCKETS if bucket >= wanted) for wanted in range(MAX_WIDTH + 1)]
# Numbers of candidates that lists have at the least. Lists of ten and of twenty with a beam of 5, the default, have
# buckets of their own: where runs are narrow, these numbers are what such a list costs.
LEAST_BUCKETS: tuple[int, ...] = (8, 16, 32, 50, 64, 100, 128)
_LEAST_OF = [next(bucket for bucket in LEAST_BUCKETS if bucket >= wanted) for wanted in range(MAX_WIDTH + 1)]

_ALL_MASS = 2.0
_LEAST_JOINED = 8
# Candidates beside the beam's for a sampled list: with fewer, lists look more alike; more are seldom drawn.
_JOINED_SAMPLED = 112
_SAMPLED_LARGE = 64
# Lists that rules choose, in beam widths: candidates that join the beam, and the length of what rules choose from. More
# nodes at the last level cost next to nothing, and more that join bring lists nearer to those chosen from the whole
# catalogue than a wider beam does, at half of its price (docs/experiments.md).
_JOINED_RULED, _LISTED_RULED = 2, 4
_NOTHING_MEASURED = RunSizes()
# Numbers of items whose signals a run takes in where shapes are padded; the last is the most that count for a list.
# They are more where the catalogue is scored as a whole, because there they are added to what is computed anyway. In a
# larger one each of them is scored for its own sake.
_SIGNALS = (1, 512, 2048)
_SIGNALS_LARGE = (1, 128)


# The most items that can be ranked by name, and the width of the beam beside them.
RANKED_MAX = 512
RANKED_WIDTH = WIDTH_BUCKETS[0]


def joined_width(k: int, width: int, *, sampled: bool = False, pool: int = 0) -> int:
    """Returns how many of the best items by what is known of their score without the path join a beam.

    With k of them the list holds whatever the exhaustive score would put there. More seldom change it, and each costs
    as much as a kept node. There are two sizes for each width, a third for lists that rules choose from
    more candidates than the beam keeps, and one for all sampled lists.

    Args:
        k: Length of the list.
        width: Width of the beam.
        sampled: Whether the list is sampled.
        pool: Candidates that rules choose from; 0 without rules.
    """
    if sampled:
        return _JOINED_SAMPLED
    if pool > width:
        return min(MAX_WIDTH, _JOINED_RULED * width)
    quarter = max(_LEAST_JOINED, width // 4)
    return quarter if k <= quarter else width


def least_candidates(decoding: Decoding, k: int, width: int, pool: int = 0) -> int:
    """Returns how many candidates a list has at the least, whatever an export measured; 0 for a sampled list.

    A demanded `beam_width` asks for so many for each item of the list, and rules for as many as they choose from.

    Args:
        decoding: How the list is decoded.
        k: Length of the list.
        width: Width of the beam, which bounds the number.
        pool: Candidates that rules choose from; 0 without rules.
    """
    if decoding.sampled:
        return 0
    of_each = decoding.beam_width if decoding.strategy == "beam" and decoding.demanded else 1
    wanted = min(width, max(of_each * k, pool))
    return min(width, _LEAST_OF[wanted])


@dataclass(frozen=True, slots=True)
class SearchSizes:
    """What one run keeps.

    Attributes:
        width: Nodes kept at every level but the last.
        listed: Nodes kept at the last level, which is also the length of the longest list.
        joined: Candidates that join them.
    """

    width: int
    listed: int
    joined: int


def search_sizes(
    width: int,
    joined: int,
    *,
    sampled: bool,
    dense: bool,
    least: int = 0,
    children: int = 1,
    measured: RunSizes = _NOTHING_MEASURED,
) -> SearchSizes:
    """Returns how many nodes a run keeps, and how many candidates join them.

    A sampled list is drawn from as many candidates at every size of catalogue. In a large one only items with signals
    may join, and a user may have none, so half of the candidates are the beam's.

    Where the export found that a narrower run makes the same lists, the run is narrower. It may be narrower than the
    list, because as many items join as the list is long, if so many are allowed. Kept nodes and those that join are at
    least `least` together. In a catalogue that is not scored as a whole maybe none join, so nothing is narrower.

    More candidates that join than the beam is wide say that rules choose from the list, which then is longer; where
    maybe none join, the beam is wider instead. Exports measure no such lists.

    Args:
        width: Width of the beam.
        joined: From `joined_width`.
        sampled: Whether the lists are sampled.
        dense: Whether the graph scores the whole catalogue.
        least: From `least_candidates`.
        children: The most children that a node of the last level but one has: the beam must have as many at the last
            level as the list is long.
        measured: What the export found.
    """
    if not dense:
        if sampled:
            width, joined = max(width, _SAMPLED_LARGE), _SAMPLED_LARGE
        elif joined > width:
            width, joined = min(MAX_WIDTH, _LISTED_RULED * width), width
        return SearchSizes(width, width, joined)
    if joined > width and not sampled:
        return SearchSizes(width, min(MAX_WIDTH, _LISTED_RULED * width), joined)
    planned = Size(width, joined)
    found = measured.of(planned, sampled=sampled)
    if found == planned:
        return SearchSizes(width, width, joined)
    listed = max(joined, least) if not sampled else width
    narrow = min(width, max(found.width, math.ceil(listed / children)))
    return SearchSizes(narrow, max(listed, narrow), max(joined, found.joined, least - narrow))


def signal_buckets(*, dense: bool) -> tuple[int, ...]:
    """Returns the few numbers of signals that a run is padded to, ascending.

    Args:
        dense: Whether the graph scores the whole catalogue.
    """
    return _SIGNALS if dense else _SIGNALS_LARGE


def signals_max(*, dense: bool) -> int:
    """Returns the most items whose signals count for a list.

    Args:
        dense: Whether the graph scores the whole catalogue.
    """
    return signal_buckets(dense=dense)[-1]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to decode one list. The sampled strategies draw without replacement.

    Attributes:
        strategy: `greedy` is `beam` with a beam width of 1.
        beam_width: Candidates for each item of the list; only for `beam`.
        top_p: Probability mass of the nucleus, 0 … 1; only for `top_p`.
        temperature: Divides the scores before sampling; only for the sampled strategies.
        demanded: Whether there must be as many candidates as `beam_width` says. If not, a list has as few as make the
            same list by what the export measured, and so many where it measured nothing.
    """

    strategy: Strategy
    beam_width: int = 5
    top_p: float = 0.9
    temperature: float = 1.0
    demanded: bool = True

    @property
    def sampled(self) -> bool:
        """Whether lists depend on a seed."""
        return self.strategy in ("top_p", "temperature")

    @property
    def nucleus(self) -> float:
        """The probability mass to draw from.

        Without a nucleus it is more than 1: a sum of float32 reaches 1 before its last terms, and they must be in too.
        """
        return self.top_p if self.strategy == "top_p" and self.top_p < 1.0 else _ALL_MASS

    @property
    def inverse_temperature(self) -> float:
        """1 ÷ temperature; 1 if the list is not sampled."""
        return 1.0 / self.temperature if self.sampled else 1.0

    def width(self, k: int) -> int:
        """Returns the number of nodes kept at every level for a list of `k`, rounded up to a bucket.

        Only `beam` keeps more than `k`: most candidates of a sampled list join the beam (`joined_width`). A run keeps
        fewer where the export found that this makes the same lists (`search_sizes`).
        """
        wanted = self.beam_width * k if self.strategy == "beam" else k
        wanted = min(MAX_WIDTH, wanted)
        return _BUCKET_OF[wanted]


def beam_of(width: int | None) -> dict[str, Any]:
    """Returns the arguments of a `Decoding` whose beam has the width that a caller names, or none in particular."""
    return {"demanded": False} if width is None else {"beam_width": width}


# One decoding of each strategy: the canary and the parity gate run them all.
ONE_OF_EACH = (
    Decoding("greedy"),
    Decoding("beam", beam_width=5),
    Decoding("top_p", top_p=0.9),
    Decoding("temperature", temperature=1.2),
)
