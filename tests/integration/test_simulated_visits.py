"""Simulated users and programs that click on everything visit a real service: its streams say what they did."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl
import redis

from loadtests.harness.bench import PATIENT
from loadtests.harness.served_process import Served, serve
from loadtests.simulator.past import earlier_clicks
from loadtests.simulator.people import People
from loadtests.simulator.visits import Seen, Visitors, make_traffic, send_past
from loadtests.simulator.world import BEFORE, Shape, World
from model.online.attribution import Attributed, Reading, attribute
from model.online.log_schema import KINDS, Kind, entry_row, frame_of
from model.online.made_traffic import Suspicion
from model.online.outcomes import by_list, by_position, genuine
from service.artifact.artifact import Artifact
from service.store.streams.log_streams import STREAMS


def test_streams_have_the_lists_and_clicks_of_users_and_mark_those_of_programs(random_artifact: Path) -> None:
    ids = Artifact.open(random_artifact).catalogue.item_ids
    people = People(World(Shape(users=12, items=len(ids), base=-0.5), ids))
    with serve(random_artifact, **PATIENT) as service:
        send_past(service.url, people.world, earlier_clicks(people, 1, 5, 1_700_000_000_000))
        told: list[Seen] = []
        seen = Visitors(service.url, people, k=5, connections=2).visit([*range(12), *range(12)], BEFORE, told.append)
        clicks = make_traffic(service.url, ["bot"], lists=3, k=5)
        assert told[-1] == seen
        assert (seen.lists, clicks) == (24, 15)
        joined = _joined(service, 27, seen.clicks + clicks)
    kept = genuine(joined)
    rows = by_list(kept.lists, by_position(kept.outcomes))
    assert len(rows) == 24
    assert rows["clicks"].sum() == seen.clicks
    assert rows["viewed_ms"].is_not_null().all()
    assert set(joined.lists.filter("made")["owner"]) == {"u:bot"}


def _joined(service: Served, lists: int, clicks: int, within_s: float = 120.0) -> Attributed:
    """Joins what the streams hold, once they hold so much: records are written behind the answers."""
    until = time.monotonic() + within_s
    while True:
        rows: dict[Kind, list[Any]] = {kind: [] for kind in KINDS}
        with redis.Redis.from_url(service.redis_url) as store:
            for stream in STREAMS:
                for key in store.scan_iter(match=f"gpt4rec:{stream}:*"):
                    entries: Any = store.xrange(key)
                    for _, fields in entries:
                        kind, row = entry_row(stream, {name.decode(): value for name, value in fields.items()})
                        rows[kind].append(row)
        tables = {kind: frame_of(kind, some) for kind, some in rows.items()}
        found = attribute(
            tables["exposures"], tables["events"], tables["merges"], tables["erased"],
            Reading(suspicion=Suspicion(clicks_max=10)),
        )  # fmt: skip
        named = found.outcomes.filter((pl.col("type") == "click") & (pl.col("mark") == "named"))
        if len(found.lists) == lists and len(named) == clicks:
            return found
        assert time.monotonic() < until, (len(found.lists), len(named))
        time.sleep(0.02)
