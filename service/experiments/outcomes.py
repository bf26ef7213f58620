"""What lists earned, by day, dimension and group: what `gpt4rec loop sink` writes to Redis, and its readers add up.

A field of the hash (`service.store.outcome_fields`) is named `<day>|<dimension>|<group>`: the number of the day since
the epoch (UTC), one of `all`, `model`, `segment`, `strategy`, `rung`, `arm`, `position`, and the group, which is
`<experiment>=<arm>` for an arm. Its value is JSON (format 2): the fields of `Sums`, clustered by subject, and those of
`Outcomes`. For `all` and `model` the sums are those of the day alone. For `arm` they are what the day changed in the
sums over the whole experiment (`service.experiments.run_subjects`): added up over its days they are clustered by
subject over the experiment, and `subjects` are those that were new on the day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from service.experiments.sums import Sums

FORMAT = 2
DAY_S = 86_400
ARM = "arm"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a group of lists earned.

    Attributes:
        sums: Lists and clicked lists; clustered by subject where subjects are told apart.
        viewed: Lists with an impression.
        clicks: Positions with a click.
        carts: Positions with an item that was put into a cart.
        conversions: Positions with a purchase.
        value: Value of the purchases.
        dwell: Value of the views.
    """

    sums: Sums = field(default_factory=Sums)
    viewed: float = 0.0
    clicks: float = 0.0
    carts: float = 0.0
    conversions: float = 0.0
    value: float = 0.0
    dwell: float = 0.0

    def __add__(self, other: Outcomes) -> Outcomes:
        """Adds what other lists earned. A subject with lists in both counts as two, except over the days of an arm."""
        mine, theirs = asdict(self.sums), asdict(other.sums)
        sums = Sums(**{name: mine[name] + theirs[name] for name in mine})
        names = [one.name for one in fields(self) if one.name != "sums"]
        return Outcomes(sums, **{name: getattr(self, name) + getattr(other, name) for name in names})

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> Self:
        """Returns the outcomes among counts by name; those that are not there are 0."""
        names = [one.name for one in fields(cls) if one.name != "sums"]
        return cls(Sums.of(counts), **{name: float(counts.get(name, 0.0)) for name in names})

    @property
    def click_through(self) -> float | None:
        """Share of lists with a click; None without lists."""
        return self.sums.rate if self.sums.lists else None

    def per_thousand(self, total: float) -> float | None:
        """Returns a total per thousand lists; None without lists."""
        return 1000.0 * total / self.sums.lists if self.sums.lists else None


@dataclass(frozen=True, slots=True)
class Place:
    """The day, the dimension and the group of some outcomes."""

    day: int
    dimension: str
    group: str


def packed(found: Mapping[Place, Outcomes]) -> dict[str, bytes]:
    """Returns outcomes as fields of the hash."""
    return {
        f"{place.day}|{place.dimension}|{place.group}": orjson.dumps(
            {"v": FORMAT, **asdict(one.sums), **{k: v for k, v in asdict(one).items() if k != "sums"}}
        )
        for place, one in found.items()
    }


def day_of(name: str) -> int | None:
    """Returns the day that a field of the hash is of; None if its name does not say so."""
    day, _, _ = name.partition("|")
    return int(day) if day.isascii() and day.isdigit() else None


def unpacked(hash_fields: Mapping[str, bytes]) -> dict[Place, Outcomes]:
    """Returns the outcomes of fields of the hash; those of another format are left out.

    Format 1 differs for arms alone, whose subjects it told apart within a day. The sink writes them anew from its log.
    """
    found = {}
    for name, body in hash_fields.items():
        day, _, rest = name.partition("|")
        dimension, _, group = rest.partition("|")
        try:
            counts = orjson.loads(body)
            if counts.get("v") == FORMAT or (counts.get("v") == 1 and dimension != ARM):
                found[Place(int(day), dimension, group)] = Outcomes.of(counts)
        except (ValueError, TypeError, AttributeError):
            continue
    return found


def by_group(
    found: Mapping[Place, Outcomes], dimension: str, *, days: Iterable[int] | None = None
) -> dict[str, Outcomes]:
    """Returns the outcomes of each group of a dimension, added up over days.

    Args:
        found: From `unpacked`.
        dimension: The dimension.
        days: The days; None for all that are there.
    """
    wanted = None if days is None else set(days)
    sums: dict[str, Outcomes] = {}
    for place, one in found.items():
        if place.dimension == dimension and (wanted is None or place.day in wanted):
            sums[place.group] = sums.get(place.group, Outcomes()) + one
    return sums


def of_arms(found: Mapping[Place, Outcomes], experiment: str, *, since_s: float = 0.0) -> dict[str, Outcomes]:
    """Returns what each arm of an experiment earned, from the day of a moment on.

    Args:
        found: From `unpacked`.
        experiment: Name of the experiment.
        since_s: The moment, epoch seconds.
    """
    since = int(since_s) // DAY_S
    groups = by_group(found, ARM, days={place.day for place in found if place.day >= since})
    head = f"{experiment}="
    return {group.removeprefix(head): one for group, one in groups.items() if group.startswith(head)}


def shown(found: Mapping[Place, Outcomes], now_s: float) -> dict[str, Any]:
    """Returns what groups earned yesterday and today as operators see it, the largest first, positions in order.

    Args:
        found: From `unpacked`.
        now_s: The present time, epoch seconds.
    """
    today = int(now_s) // DAY_S
    days = sorted({place.day for place in found if today - 1 <= place.day <= today})
    groups = {}
    for dimension in sorted({place.dimension for place in found if place.day in days}):
        rows = [_row(group, one) for group, one in by_group(found, dimension, days=days).items()]
        order = (lambda row: row["group"].zfill(9)) if dimension == "position" else (lambda row: -row["lists"])
        groups[dimension] = sorted(rows, key=order)
    return {"days": [datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat() for day in days], "groups": groups}


def _row(group: str, one: Outcomes) -> dict[str, Any]:
    return {
        "group": group,
        "lists": one.sums.lists,
        "viewed": round(one.viewed),
        "click_through": one.click_through,
        "conversions_per_thousand": one.per_thousand(one.conversions),
        "value_per_thousand": one.per_thousand(one.value),
    }
