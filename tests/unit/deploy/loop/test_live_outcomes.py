"""What lists earn is worked off beside the work of the sink."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import orjson
from prometheus_client import CollectorRegistry

from deploy.loop.sink.live_outcomes import LiveOutcomes
from model.online.log_folder import LogFolder
from service.metrics.sink_metrics import SinkMetrics
from service.store.outcome_fields import OutcomeFields
from service.store.streams.log_streams import Shard
from service.store.streams.stream_group import StreamEntry
from tests.support.aio import asynchronous


def shown(list_id: str) -> StreamEntry:
    body = {"list_id": list_id, "time_ms": int(time.time() * 1000), "items": ["1", "2"]}
    return StreamEntry(f"1-{list_id}", {"v": b"1", "s": b"u:1", "e": orjson.dumps(body)})


@asynchronous
async def test_a_long_queue_leaves_others_their_turn(tmp_path: Path) -> None:
    unused = cast(OutcomeFields, None)
    metrics = SinkMetrics(CollectorRegistry())
    live = LiveOutcomes(LogFolder(str(tmp_path)), unused, metrics, open_most=10**5, open_ms=86_400_000)
    live.feed(Shard("exposures", 0), [shown(str(number)) for number in range(1000)])
    turn, others = asyncio.create_task(live.turn()), 0
    while not turn.done():
        await asyncio.sleep(0.0)
        others += 1
    assert others >= 5
    assert live.figures()["all", "all"].sums.lists == 1000
