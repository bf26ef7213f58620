"""After a start the sink knows the subjects of experiments that began days ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, cast

import polars as pl
from prometheus_client import CollectorRegistry

from deploy.loop.sink.live_outcomes import LiveOutcomes
from deploy.loop.sink.tallies import DAY_MS
from model.online.log_folder import LogFolder
from service.common.sink_metrics import SinkMetrics
from service.experiments.outcomes import of_arms, unpacked
from service.experiments.sums import Sums
from service.store.outcome_fields import OutcomeFields


class Kept:
    """Rows of lists by their time, and the hash of outcomes."""

    def __init__(self, lists: list[dict[str, Any]]) -> None:
        self.lists, self.fields = lists, dict[str, bytes]()

    def read(self, _: str, __: Any, *, from_ms: int, until_ms: int) -> Iterator[pl.DataFrame]:
        rows = [one for one in self.lists if from_ms <= one["time_ms"] < until_ms]
        if rows:
            yield pl.DataFrame(rows)

    def read_all(self, _: str, **__: Any) -> pl.DataFrame:
        return pl.DataFrame()

    async def write(self, fields: dict[str, bytes]) -> None:
        self.fields |= fields


def test_a_subject_that_came_days_ago_is_no_new_one_after_a_start() -> None:
    today = int(time.time() * 1000) // DAY_MS
    lists = [
        {
            "list_id": f"l{ago}", "request_id": None, "subject": "u:1", "time_ms": (today - ago) * DAY_MS,
            "items": ["1"], "model_version": "m", "segment": None, "strategy": "beam", "rung": "full",
            "arms": [{"experiment": "e", "arm": "b"}],
        }
        for ago in (9, 8, 2, 1, 0)
    ]  # fmt: skip
    kept = Kept(lists)
    live = LiveOutcomes(
        cast("LogFolder", kept), cast("OutcomeFields", kept), SinkMetrics(CollectorRegistry()),
        open_most=100, open_ms=DAY_MS,
    )  # fmt: skip
    live.read_log()
    asyncio.run(live.show())
    found = unpacked(kept.fields)
    # The experiment had no list for five days, and began anew.
    assert of_arms(found, "e", since_s=(today - 3) * 86_400)["b"].sums == Sums(1, 3, 0, 9, 0, 0)
    assert {place.dimension for place in found if place.day < today - 1} == {"arm"}
