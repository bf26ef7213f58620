"""Rounds of rolling changes: what is missing or doubled is counted, and the journal goes on."""

from __future__ import annotations

from pathlib import Path

import redis

from loadtests.fleet.rolling_rounds import Journal, Round, compared, summed
from service.store.records import NewEvent, Subject
from service.store.store_settings import StoreSettings
from tests.support.valkey import Valkey


def round_of(number: int, proxy: str = "nginx", **more: object) -> Round:
    given = {
        "lists": 3, "batches": 2, "hedged": 1, "events": 4, "errors": 0, "missing": 0, "doubled": 0, "killed": 0,
        "stale": 0, "left_out": 0, "kinds": {}, "rungs": {"full": 3}, "models": {"m": 3},
    }  # fmt: skip
    return Round(kind="restarts", proxy=proxy, number=number, to="this", **{**given, **more})  # type: ignore[arg-type]


def test_acknowledged_events_that_are_not_stored_are_missing_and_others_may_be_doubled(shared_valkey: Valkey) -> None:
    subject = Subject("user", "rolling-compared")
    key = f"{StoreSettings(url='').prefix}{subject.tag}:events"
    with redis.Redis.from_url(shared_valkey.url) as client:
        for event_id, item in (("a", "1"), ("b", "1"), ("b", "2")):
            member = NewEvent(item_id=item, type="click", time_ms=1, event_id=event_id).member(subject)
            client.zadd(key, {member: 1.0})
        try:
            assert compared(shared_valkey.url, {subject.id: {"a", "b", "c"}}) == (1, 1)
        finally:
            client.delete(key)


def test_the_journal_keeps_rounds_and_takes_up_what_was_done(tmp_path: Path) -> None:
    file = tmp_path / "work" / "rounds.jsonl"
    Journal(file).add(round_of(1))
    Journal(file).add(round_of(0))
    Journal(file).add(round_of(0, proxy="haproxy", kinds={"/events 503": 2}, errors=2))
    assert [one.number for one in Journal(file).of("restarts", "nginx")] == [0, 1]
    assert Journal(file).of("releases", "nginx") == []


def test_sums_have_every_kind_of_error_and_the_criterion_counts_all_of_them() -> None:
    rounds = [round_of(0, errors=2, kinds={"x": 2}), round_of(1, missing=1, doubled=3, kinds={"x": 1, "y": 1})]
    assert sum(one.lost for one in rounds) == 6
    sums = summed(rounds)
    assert (sums["rounds"], sums["lists"], sums["errors"], sums["kinds"]) == (2, 6, 2, {"x": 3, "y": 1})
