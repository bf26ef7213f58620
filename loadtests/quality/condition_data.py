"""Data sets for the conditions, derived from imported ones by stated rules.

    python -m loadtests.quality.condition_data --data DIR --out DIR [--days 90] [--least 100] [--households 3]
    python -m loadtests.quality.condition_data --data DIR --out DIR --rated

The command saves the newest part of a log of purchases, `journey`, or a log whose ratings are types, `typed_by_rating`,
for other commands that take a data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from model.data.dataset import Dataset
from model.data.errors import DataError
from service.cli.outermost import run_command

DAY_MS = 86_400_000
# What ratings stand for where a log has no types of its own: the best are bought, the worst only looked at.
TYPE_OF_RATING = {5: "purchase", 4: "cart", 3: "click", 2: "view", 1: "view"}


def journey(dataset: Dataset, days: int, least: int, households: int) -> Dataset:
    """Returns the newest part of a log of purchases, with the part of the day as the scene of an event.

    Args:
        dataset: The log.
        days: Keep the newest days.
        least: Keep items bought at least so often in the whole log.
        households: Keep every n-th user, by order of first appearance.

    Raises:
        DataError: If the log has no times, or nothing is left.
    """
    events = dataset.events
    if not dataset.has_time:
        raise DataError("the newest days of a log need times", fix="take another data set")
    often = events.group_by("item_id").len().filter(pl.col("len") >= least)["item_id"]
    users = events["user_id"].unique(maintain_order=True)[::households]
    newest = pl.col("timestamp") > pl.col("timestamp").max() - days * DAY_MS
    known = pl.col("item_id").is_in(often.to_list()) & pl.col("user_id").is_in(users.to_list())
    kept = events.filter(newest & known)
    if kept.is_empty():
        raise DataError("the rule leaves no event", fix="take more days, users or items")
    kept = kept.with_columns(scene=day_part(pl.col("timestamp")))
    items = dataset.items.filter(pl.col("item_id").is_in(kept["item_id"].unique().to_list()))
    of_users = dataset.users.filter(pl.col("user_id").is_in(kept["user_id"].unique().to_list()))
    return Dataset.of(
        f"{dataset.name}, {days} days, items {least} times, users 1 in {households}",
        kept, items, of_users, has_time=True, category_kind=dataset.category_kind, source=dataset.source,
    )  # fmt: skip


def day_part(timestamp: pl.Expr) -> pl.Expr:
    """Maps a time in ms to weekday or weekend, and morning (till 11), midday (till 16) or evening."""
    time = pl.from_epoch(timestamp, time_unit="ms")
    day = pl.when(time.dt.weekday() >= 6).then(pl.lit("weekend ")).otherwise(pl.lit("weekday "))
    hour = time.dt.hour()
    part = (
        pl.when(hour < 11).then(pl.lit("morning")).when(hour < 16).then(pl.lit("midday")).otherwise(pl.lit("evening"))
    )
    return day + part


def typed_by_rating(dataset: Dataset) -> Dataset:
    """The log with its ratings read as event types, `TYPE_OF_RATING`. Raises DataError where there are none."""
    rated = dataset.events["value"].drop_nulls().round().cast(pl.Int64).unique()
    if rated.is_empty() or not set(rated) <= set(TYPE_OF_RATING):
        raise DataError("the log has no ratings of 1 to 5", fix="take another data set")
    rating = pl.col("value").round().cast(pl.Int64)
    events = dataset.events.with_columns(event_type=rating.replace_strict(TYPE_OF_RATING, default="other"))
    return Dataset.of(
        f"{dataset.name}, ratings as types", events, dataset.items, dataset.users,
        has_time=dataset.has_time, category_kind=dataset.category_kind, source=dataset.source,
    )  # fmt: skip


def main(
    data: Annotated[Path, typer.Option(help="Data set of `gpt4rec data`.")],
    out: Annotated[Path, typer.Option(help="Folder of the derived data set.")],
    days: Annotated[int, typer.Option(min=1, help="Use the newest days of the log.")] = 90,
    least: Annotated[int, typer.Option(min=1, help="Leave out items bought less often.")] = 100,
    households: Annotated[int, typer.Option(min=1, help="Use every n-th user.")] = 3,
    rated: Annotated[bool, typer.Option("--rated", help="Read ratings as event types instead.")] = False,
) -> None:
    """Saves a derived data set, for commands that take one."""
    dataset = Dataset.load(data)
    (typed_by_rating(dataset) if rated else journey(dataset, days, least, households)).save(out)


if __name__ == "__main__":
    run_command(main)
