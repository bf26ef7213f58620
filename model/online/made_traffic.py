"""Marks of invalid traffic: clicks faster than people click, and clicks on lists that nobody viewed.

Reports and learning leave marked traffic out unless they are asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from service.artifact.array_types import BoolArray, IntArray

# Why an event is marked.
RATE, UNSEEN = "rate", "unseen"

_DAY_MS = 86_400_000
# Clients that report views report far more of them than clicks.
_VIEWS_FOR_A_CLICK = 0.5


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What traffic counts as made.

    Attributes:
        clicks_max: The most clicks of one subject within `clicks_ms` that people make. A subject that exceeds it is
            marked with all its lists and events of that day (UTC), since its other traffic is no more human.
        clicks_ms: Length of that time, milliseconds.
        types: Types of events that count as clicks.
    """

    clicks_max: int = 60
    clicks_ms: int = 60_000
    types: tuple[str, ...] = ("click",)


def mark_made(
    lists: pl.DataFrame, outcomes: pl.DataFrame, suspicion: Suspicion, views_reported: bool | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Adds the column `made` to both tables.

    A click on a list that nothing says was viewed, until then, is marked where clients report views.

    Args:
        lists: Lists with `owner`, `time_ms` and `viewed_ms`.
        outcomes: Events with `owner`, `time_ms`, `type` and `list_id`.
        suspicion: What traffic counts as made.
        views_reported: Whether clients report views; None: if there is one impression for two clicks at least.

    Returns:
        The lists with whether they look made; the outcomes with why they do, null if they do not.
    """
    clicks = outcomes.filter(pl.col("type").is_in(suspicion.types))
    days = _fast_days(clicks, suspicion)
    day = pl.col("time_ms") // _DAY_MS
    lists = lists.with_columns(__day=day).join(days, on=["owner", "__day"], how="left", maintain_order="left")
    lists = lists.with_columns(made=pl.col("__fast").fill_null(value=False)).drop("__day", "__fast")
    outcomes = outcomes.with_columns(__day=day).join(days, on=["owner", "__day"], how="left", maintain_order="left")
    outcomes = outcomes.join(lists.select("list_id", "viewed_ms"), on="list_id", how="left", maintain_order="left")
    if views_reported is None:
        views = int((outcomes["type"] == "impression").sum())
        views_reported = reports_views(views, len(clicks))
    viewed = pl.col("viewed_ms").is_not_null() & (pl.col("viewed_ms") <= pl.col("time_ms"))
    unseen = pl.col("type").is_in(suspicion.types) & pl.col("list_id").is_not_null() & ~viewed
    made = (
        pl.when(pl.col("__fast").fill_null(value=False))
        .then(pl.lit(RATE))
        .when(unseen & pl.lit(views_reported))
        .then(pl.lit(UNSEEN))
    )
    return lists, outcomes.with_columns(made=made).drop("__day", "__fast", "viewed_ms")


def reports_views(views: int, clicks: int) -> bool:
    """Returns whether clients report views, judged by the numbers of impressions and clicks."""
    return views > 0 and views >= _VIEWS_FOR_A_CLICK * clicks


def _fast_days(clicks: pl.DataFrame, suspicion: Suspicion) -> pl.DataFrame:
    """Days on which a subject clicked faster than people do."""
    ordered = clicks.select("owner", "time_ms").sort("owner", "time_ms")
    fast = too_fast(
        ordered["owner"].rank("dense").cast(pl.Int64).to_numpy(),
        ordered["time_ms"].to_numpy(),
        suspicion.clicks_max,
        suspicion.clicks_ms,
    )
    days = ordered.filter(pl.Series(fast, dtype=pl.Boolean)).select("owner", __day=pl.col("time_ms") // _DAY_MS)
    return days.unique().with_columns(__fast=pl.lit(value=True))


def too_fast(subject: IntArray, time_ms: IntArray, most: int, within_ms: int) -> BoolArray:
    """Returns which clicks lie in a span of less than `within_ms` with more than `most` clicks of their subject.

    Args:
        subject: [n] number of the subject, ascending.
        time_ms: [n] times, ascending within a subject.
        most: The most clicks that are not too fast.
        within_ms: Length of the span.
    """
    n = len(subject)
    fast: BoolArray = np.zeros(n, bool)
    if n <= most:
        return fast
    first = np.arange(n - most)
    burst = (subject[first + most] == subject[first]) & (time_ms[first + most] - time_ms[first] < within_ms)
    # Each burst covers its `most` + 1 clicks.
    edges = np.zeros(n + 1, np.int64)
    np.add.at(edges, first[burst], 1)
    np.add.at(edges, first[burst] + most + 1, -1)
    fast[:] = np.cumsum(edges[:-1]) > 0
    return fast
