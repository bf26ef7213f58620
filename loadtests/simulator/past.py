"""What users did before the service began: an older system showed them items at random, and some were clicked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from loadtests.simulator.people import People
from loadtests.simulator.world import BEFORE, World
from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, Dataset


@dataclass(frozen=True, slots=True)
class Click:
    """A click of a user on an item."""

    user: int
    item: int
    time_ms: int


def earlier_clicks(people: People, lists: int, k: int, until_ms: int, every_ms: int = 60_000) -> Iterator[Click]:
    """Yields what users clicked on random lists, in the order of time.

    Args:
        people: The users, who remember the lists.
        lists: Lists that each user has seen.
        k: Items of a list.
        until_ms: When this ends, Unix milliseconds.
        every_ms: Time between two lists of a user.
    """
    shape = people.world.shape
    rng = np.random.default_rng((shape.seed, 3))
    clicked = np.zeros((shape.users, shape.items), bool)
    for number in range(lists):
        began_ms = until_ms - (lists - number) * every_ms
        for user in range(shape.users):
            items = rng.choice(np.flatnonzero(~clicked[user]), k, replace=False)
            for item in items[people.visit(user, items, BEFORE).clicked].tolist():
                clicked[user, item] = True
                yield Click(user, item, began_ms + user * every_ms // shape.users)


def dataset_of(world: World, clicks: Iterable[Click], *, groups: bool = False) -> Dataset:
    """Returns clicks as a data set, with the whole catalogue and all users.

    Args:
        world: Whose clicks they are.
        clicks: The clicks.
        groups: Whether the users have the feature `group`, by which their tastes differ.
    """
    rows = [(world.user_ids[c.user], world.item_ids[c.item], c.time_ms, "click", None, None) for c in clicks]
    events = pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row")
    columns = {
        "item_id": world.item_ids,
        "title": [f"Item {name}" for name in world.item_ids],
        "category": [[f"category {number}"] for number in world.category.tolist()],
        "attributes": [[] for _ in world.item_ids],
    }
    items = pl.DataFrame(
        {name: columns.get(name, [None] * len(world.item_ids)) for name in ITEM_SCHEMA}, schema=ITEM_SCHEMA
    )
    users = pl.DataFrame({"user_id": world.user_ids}, schema={"user_id": pl.String})
    if groups:
        users = users.with_columns(group=pl.Series([f"group {number}" for number in world.group.tolist()]))
    return Dataset.of(
        "simulated", _grouped(events), items, users, has_time=True, category_kind="path", source="loadtests.simulator"
    )


def _grouped(events: pl.DataFrame) -> pl.DataFrame:
    """By user in order of first appearance, and by time within a user."""
    order = pl.DataFrame({"user_id": events["user_id"].unique(maintain_order=True)}).with_row_index("of_user")
    events = events.join(order, on="user_id", maintain_order="left")
    return events.sort("of_user", "timestamp", maintain_order=True).drop("of_user")
