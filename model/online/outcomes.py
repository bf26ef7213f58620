"""What lists earned: clicks, carts, conversions, value and dwell, by list and position."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import polars as pl

from model.online.attribution import Attributed

Reward = Literal["clicks", "carts", "conversions", "value", "dwell"]

# What earns what. Of several clicks on one item of a list one counts, and likewise of carts and conversions; values are
# added up.
_COUNTED: Mapping[Reward, str] = MappingProxyType({"clicks": "click", "carts": "cart", "conversions": "purchase"})
_SUMMED: Mapping[Reward, str] = MappingProxyType({"value": "purchase", "dwell": "view"})
REWARDS: tuple[Reward, ...] = (*_COUNTED, *_SUMMED)


def genuine(joined: Attributed, *, made: bool = False, viewed: bool = False) -> Attributed:
    """Returns the lists that reports and learning look at, and their events.

    Args:
        joined: Lists and events.
        made: Whether traffic that looks made is in as well.
        viewed: Whether only lists are in that somebody viewed.
    """
    lists, outcomes = joined.lists, joined.outcomes
    if not made:
        lists, outcomes = lists.filter(~pl.col("made")), outcomes.filter(pl.col("made").is_null())
    if viewed:
        lists = lists.filter(pl.col("viewed_ms").is_not_null())
    return Attributed(lists, outcomes, joined.counts)


def by_position(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Returns what each position earned that earned anything.

    Args:
        outcomes: The outcomes of `Attributed`.

    Returns:
        `list_id`, `position` (from 1), and a float64 column for each reward.
    """
    typed = {name: (pl.col("type") == kind).any().cast(pl.Float64) for name, kind in _COUNTED.items()}
    summed = {
        name: pl.col("value").filter((pl.col("type") == kind) & pl.col("value").is_finite()).sum()
        for name, kind in _SUMMED.items()
    }
    earning = [*_COUNTED.values(), *_SUMMED.values()]
    rows = outcomes.filter(pl.col("position").is_not_null() & pl.col("type").is_in(earning))
    return rows.group_by("list_id", "position").agg(**typed, **summed).sort("list_id", "position")


def by_list(lists: pl.DataFrame, positions: pl.DataFrame) -> pl.DataFrame:
    """Returns the lists with what each earned, and `clicked`: whether anything on it was clicked, 0 or 1.

    Args:
        lists: The lists of `Attributed`.
        positions: From `by_position`.
    """
    sums = positions.group_by("list_id").agg(
        pl.col(*REWARDS).sum(), clicked=(pl.col("clicks") > 0).any().cast(pl.Float64)
    )
    filled = [pl.col(name).fill_null(0.0) for name in (*REWARDS, "clicked")]
    return lists.join(sums, on="list_id", how="left", maintain_order="left").with_columns(filled)
