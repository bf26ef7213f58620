"""What the service gives the engine for a stored history is what the trainer gives the network for the same log."""

from __future__ import annotations

import numpy as np
import polars as pl

from model.data.dataset import Dataset, sequences
from model.training.batches import collate, cut
from service.artifact.features import EventArrays
from tests.support.aio import asynchronous
from tests.support.fakes import ITEMS, FakeArtifact
from tests.support.serving import serving
from tests.support.valkey import Valkey

START_MS = 1_700_000_000_000
# (item, type, milliseconds after the start), in the order they arrive: late ones, ties, an unknown type, every kind.
LOG = [
    ("3", "view", 0),
    ("7", "click", 60_000),
    ("7", "click", 60_000),
    ("5", "purchase", 30_000),
    ("1", "rating", 60_000),
    ("9", "wishlist", 90_000),
    ("2", "cart", 89_999),
]


def trainers_input() -> EventArrays:
    """The encoder input of the whole history: a last event is added, since a trainer's last one is only a target."""
    rows = sorted(set(LOG), key=lambda row: (row[2], LOG.index(row)))
    frame = pl.DataFrame(
        {
            "user_id": ["u"] * (len(rows) + 1),
            "item_id": [*(item for item, _, _ in rows), "0"],
            "timestamp": [*(START_MS + ms for _, _, ms in rows), START_MS + 10**9],
            "event_type": [*(kind for _, kind, _ in rows), "view"],
            "value": [None] * (len(rows) + 1),
            "session_id": [None] * (len(rows) + 1),
        }
    )
    items = pl.DataFrame({"item_id": [item.item_id for item in ITEMS]})
    dataset = Dataset.of("log", frame, items, pl.DataFrame({"user_id": ["u"]}), has_time=True)
    chunks = cut(sequences(dataset), max_length=100, context=5)
    batch = collate(chunks, np.array([0]), FakeArtifact().vocabulary.start_item)
    return EventArrays(batch.item[0].numpy(), batch.type[0].numpy(), batch.time_ms[0].numpy())


@asynchronous
async def test_training_and_serving_see_the_same_features(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="same-features:") as service:
        events = [{"user_id": "u", "item_id": i, "type": kind, "timestamp": START_MS + ms} for i, kind, ms in LOG]
        assert (await service.client.post("/events", json={"events": events})).status_code == 200
        await service.recommend(user_id="u")
        job = service.engine.encoded[-1]
    assert job.state is None
    assert job.from_start
    served = FakeArtifact().vocabulary.with_start(job.events)
    for name in ("item", "type", "time_ms"):
        np.testing.assert_array_equal(getattr(served, name), getattr(trainers_input(), name), err_msg=name)
