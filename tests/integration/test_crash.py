"""Invariant 6: what /events acknowledged outlives the service."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.support.processes import PATIENT, Serve, T, event, history, ids, items_of, recommend, serve

WRITERS = 4


class Writer(threading.Thread):
    """Posts small batches for a user of its own until the service is gone; notes what was acknowledged."""

    def __init__(self, service: Serve, user: str, items: list[str]) -> None:
        super().__init__()
        self._url, self.user, self._items = service.client.base_url, user, items
        self.sent: list[list[dict[str, object]]] = []
        self.acknowledged: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30.0) as client:
            while True:
                first = 3 * len(self.sent)
                batch = [
                    event(self.user, self._items[n % len(self._items)], T + n, event_id=f"{self.user}-{n}")
                    for n in range(first, first + 3)
                ]
                self.sent.append(batch)
                try:
                    answer = client.post("/events", json={"events": batch})
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    assert answer.json()["accepted"] == 3
                    self.acknowledged += [str(one["event_id"]) for one in batch]


# What `aof` acknowledges has waited for the disk, which the embedded server writes once a second.
@pytest.mark.parametrize(("durability", "enough"), [("memory", 100), ("aof", 6)])
def test_acknowledged_event_survives_a_crash_of_the_service(
    random_artifact: Path, tmp_path: Path, durability: str, enough: int
) -> None:
    """kill -9 in the middle of writes, and a start on the same data: every acknowledged event is there, none twice, and
    what was not acknowledged can be sent again."""
    items = items_of(random_artifact)
    where = ("--artifact", str(random_artifact), "--redis", "embedded")
    settings = {**PATIENT, "GPT4REC_HISTORY_CAP": "100000", "GPT4REC_REDIS_DURABILITY": durability}
    with serve(tmp_path, *where, **settings) as service:
        writers = [Writer(service, f"u{n}", items) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        until = time.monotonic() + 30.0
        while min(len(writer.acknowledged) for writer in writers) < enough:
            assert time.monotonic() < until
            time.sleep(0.001)
        service.kill9()
        for writer in writers:
            writer.join(30.0)
    with serve(tmp_path, *where, **settings) as service:
        for writer in writers:
            there = Counter(one["event_id"] for one in history(service, writer.user))
            assert set(writer.acknowledged) <= set(there)
            assert set(there.values()) == {1}
            everything = [one for batch in writer.sent for one in batch]
            for first in range(0, len(everything), 900):
                again = service.client.post("/events", json={"events": everything[first : first + 900]})
                assert again.status_code == 200
            assert [one["event_id"] for one in history(service, writer.user)] == [one["event_id"] for one in everything]
        answer = recommend(service, user_id="u0", k=5, exclude_seen=False)
        assert (answer["rung"], len(ids(answer))) == ("full", 5)
        assert service.stop() == 0
