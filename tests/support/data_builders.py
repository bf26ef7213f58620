"""Small data sets with a structure that a model can learn."""

from __future__ import annotations

import numpy as np
import polars as pl

from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, CategoryKind, Dataset

START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


def tiny_dataset(
    users: int = 40,
    items: int = 30,
    seed: int = 0,
    has_time: bool = True,
    *,
    min_events: int = 5,
    max_events: int = 12,
    follow: float = 0.85,
    category_kind: CategoryKind = "path",
) -> Dataset:
    """A log in which an item is mostly followed by the next one of its category, a ring of about five items.

    With probability `follow` the next event goes on round the ring, otherwise it jumps anywhere; so the best
    guess after each item is known. Users begin at items 0, 1, 2 … in turn and have `min_events` to
    `max_events` events.
    """
    rng = np.random.default_rng(seed)
    groups = max(1, items // 5)
    group_of = np.arange(items) % groups
    rings = [np.flatnonzero(group_of == g) for g in range(groups)]
    rows: list[tuple[str, str, int | None, str, float | None, str | None]] = []
    for u in range(users):
        item = u % items
        clock = START_MS + int(rng.integers(0, 1000)) * HOUR_MS
        for n in range(int(rng.integers(min_events, max_events + 1))):
            kind = "purchase" if n % 4 == 3 else "view"
            time = clock if has_time else None
            rows.append((f"u{u}", f"i{item}", time, kind, None, f"u{u}-s{n // 4}"))
            clock += int(rng.integers(1, 48)) * HOUR_MS
            ring = rings[int(group_of[item])]
            at = int(np.searchsorted(ring, item))
            item = int(ring[(at + 1) % len(ring)]) if rng.random() < follow else int(rng.integers(items))
    names = [f"i{i}" for i in range(items)]
    columns = {
        "item_id": names,
        "title": [f"Item {i}" for i in range(items)],
        "category": [[f"dept{g % 2}", f"group{g}"] for g in group_of.tolist()],
        "brand": [f"brand{i % 4}" for i in range(items)],
        "attributes": [[f"a{i % 3}", f"b{i % 7}"] for i in range(items)],
        "text": [f"Item {i} of group {group_of[i]}" for i in range(items)],
        "price": [1.0 + i for i in range(items)],
    }
    features = {
        "user_id": [f"u{u}" for u in range(users)],
        "gender": ["F" if u % 2 else "M" for u in range(users)],
        "age_group": [("18-24", "25-34", None)[u % 3] for u in range(users)],
    }
    return Dataset.of(
        "tiny",
        pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row"),
        pl.DataFrame(columns, schema=ITEM_SCHEMA),
        pl.DataFrame(features, schema=dict.fromkeys(features, pl.String)),
        has_time=has_time,
        category_kind=category_kind,
        source=f"built with seed {seed}",
    )
