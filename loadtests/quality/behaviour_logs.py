"""A log of clicks, purchases and searches whose truth is known."""

from __future__ import annotations

import numpy as np
import polars as pl

from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, SEARCH_SCHEMA, Dataset

_MINUTE_MS = 60_000
_START_MS = 1_700_000_000_000


def known_log(users: int, items: int, clicks: int, seed: int = 0) -> Dataset:
    """Returns a log in which what is bought next follows from the purchase before, or from a search.

    A user clicks at random, `clicks` times between two purchases. A purchase is the item after the one that was bought
    before, or, if a search comes just before it, the item that the search names. Half of the purchases come after a
    search, those that end a history among them. So clicks say nothing, the last purchase tells all others, and only the
    text of a query tells those after a search.

    Args:
        users: Number of users.
        items: Number of items.
        clicks: Clicks between two purchases.
        seed: Seed of everything random.
    """
    rng = np.random.default_rng(seed)
    events: list[tuple[str, str, int, str, None, None]] = []
    searches: list[tuple[str, int, str]] = []
    for user in range(users):
        name, bought = f"u{user}", int(rng.integers(items))
        now = _START_MS + int(rng.integers(1000)) * _MINUTE_MS
        for visit in range(6):
            for _ in range(clicks):
                now += _MINUTE_MS
                events.append((name, f"i{rng.integers(items)}", now, "click", None, None))
            # The last two purchases are the questions: of even users after a search, of odd ones without.
            searched = user % 2 == 0 if visit >= 4 else bool(rng.random() < 0.5)
            bought = int(rng.integers(items)) if searched else (bought + 1) % items
            now += _MINUTE_MS
            if searched:
                searches.append((name, now - 1000, f"{_WORDS[int(rng.integers(len(_WORDS)))]} thing {bought}"))
            events.append((name, f"i{bought}", now, "purchase", None, None))
    ids = [f"i{item}" for item in range(items)]
    catalogue = pl.DataFrame({"item_id": ids}).with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in ITEM_SCHEMA.items() if name != "item_id"
    )
    return Dataset.of(
        f"known behaviours, {users} users",
        pl.DataFrame(events, schema=EVENT_SCHEMA, orient="row"),
        catalogue.with_columns(pl.col("category", "attributes").fill_null([])),
        pl.DataFrame({"user_id": [f"u{user}" for user in range(users)]}),
        has_time=True,
        searches=pl.DataFrame(searches, schema=SEARCH_SCHEMA, orient="row").sort("timestamp", maintain_order=True),
    )


_WORDS = ("buy", "cheap", "best", "new")
