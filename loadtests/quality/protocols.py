"""The two readings of leave-one-out, and how the parts of the ranking are named after them. Pure.

*strict*: the last event but one of everybody is held out of the training, as in the published tables. A part is named
`strict Beauty`. *sampled*: it is held out for a sample of users only; a part is named by the data set alone, `Beauty`.
`Beauty, validation_users=0` is a strict part that was measured before the ranker of all signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STRICT, SAMPLED = "strict", "sampled"
SPLITS = (STRICT, SAMPLED)
# The published protocol leaves the items of the history out of every list, so the choices on validation do, too.
NO_REPEATS = "repeats=false"
# Split → what a training changes of the defaults.
CHANGES = {STRICT: ("validation_users=0", NO_REPEATS), SAMPLED: (NO_REPEATS,)}
SHUFFLED = "ties shuffled"
BEFORE = "validation_users=0"


def part_name(data: str, split: str, ties: str, minutes: float | None, changed: Sequence[str] = ()) -> str:
    """Returns the name of a part: split, data set, and all that was not the default."""
    named = [f"{STRICT} {data}" if split == STRICT else data]
    if ties != "published":
        named.append(f"ties {ties}")
    if minutes is not None:
        named.append(f"{minutes:g} minutes")
    return ", ".join([*named, *changed])


@dataclass(frozen=True, order=True)
class Reading:
    """What the name of a part says, in the order in which parts are shown: strict ones first.

    Attributes:
        place: 0 for strict, 1 for strict before the ranker, 2 for sampled.
        data: Name of the data set.
        options: What was not the default, in words.
    """

    place: int
    data: str
    options: tuple[str, ...] = ()

    @property
    def split(self) -> str:
        """The split in words."""
        return (STRICT, f"{STRICT}, before the ranker", SAMPLED)[self.place]

    @property
    def shuffled(self) -> bool:
        """Whether ties in time were put into another order."""
        return SHUFFLED in self.options

    @property
    def name(self) -> str:
        """The data set and its options."""
        return ", ".join([self.data, *self.options])


def reading(part: str) -> Reading:
    """Reads the name of a part."""
    first, *options = part.split(", ")
    if BEFORE in options:
        return Reading(1, first, tuple(option for option in options if option != BEFORE))
    if first.startswith(f"{STRICT} "):
        return Reading(0, first.removeprefix(f"{STRICT} "), tuple(options))
    return Reading(2, first, tuple(options))


def split_said(label: str, part: Mapping[str, Any]) -> str:
    """Returns the split of a part in words, and whether it was measured before the ranker of all signals.

    Args:
        label: Name of the part.
        part: What was recorded of it. A seed that was measured with the ranker says what it learned.
    """
    said, seeds = reading(label).split, part.get("seeds", {})
    older = bool(seeds) and not any("ranker" in seed for seed in seeds.values())
    return f"{said}, before the ranker" if older and reading(label).place != 1 else said


def ordered(parts: Sequence[str]) -> list[str]:
    """Returns the names of parts in the order in which they are shown.

    Strict parts come first. Within a split, data sets keep their order, and shuffled ties follow the published ones.
    """
    readings = {part: reading(part) for part in parts}
    seen = list(dict.fromkeys(one.data for one in readings.values()))
    return sorted(parts, key=lambda part: (readings[part].place, seen.index(readings[part].data)))
