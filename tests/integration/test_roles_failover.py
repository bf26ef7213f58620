"""The roles on a Sentinel group whose master is killed under load: what is promised of events, lists and states."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from loadtests.chaos.load import RECOMMEND, Load
from loadtests.fleet.failover_rows import NAMES
from loadtests.fleet.failover_scene import SETTINGS, accepted, beyond, missing_events, read
from loadtests.harness.sentinel import SentinelGroup
from tests.integration.test_role_processes import Fleet, figure, until
from tests.support.processes import Serve, event, ids, recommend

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(300)]

RATE = 40.0


def kill_the_master(group: SentinelGroup) -> tuple[float, float]:
    """Kills the master, which comes back as a replica; returns when this began and ended."""
    began, old = time.perf_counter(), group.master()
    old.kill9()
    until(lambda: group.master() is not old)
    old.start()
    until(lambda: old.say("ROLE") == b"*5")
    return began, time.perf_counter()


def encoded(encoder: Serve) -> float:
    return figure(encoder, "gpt4rec_encode_entries_total", 'outcome="encoded"')


def list_follows_event(answers: list[Serve], user: str, number: int) -> None:
    """One process stores an event on the first item of the other's list, which is in its next list no more."""
    first, second = answers[number % 2], answers[1 - number % 2]
    item = ids(recommend(second, user_id=user, k=5))[0]
    body = {"events": [event(user, item, int(time.time() * 1000), event_id=f"last-{number}")]}
    assert first.client.post("/events", json=body).status_code == 200
    shown = recommend(second, user_id=user, k=5)
    assert (shown["rung"], shown["reason"]) == ("full", None)
    assert item not in ids(shown)


@pytest.mark.parametrize("durability", ["memory", "replica"])
def test_a_master_that_is_killed_costs_the_roles_no_more_than_is_promised(
    durability: str, random_artifact: Path, tmp_path: Path
) -> None:
    row = NAMES[f"sentinel, master killed, {durability}"]
    settings = {
        **SETTINGS, "GPT4REC_REDIS_DURABILITY": durability, "GPT4REC_REDIS_REPLICAS": str(row.replicas),
    }  # fmt: skip
    (folder := tmp_path / "redis").mkdir()
    group = SentinelGroup(folder, replicas=row.replicas, sentinels=3, down_after_ms=1000)
    with ExitStack() as stack:
        stack.enter_context(group)
        fleet = Fleet(stack, tmp_path, random_artifact, group.url)
        answers = [fleet.start("answer", more=settings), fleet.start("answer", more=settings)]
        encoder = fleet.start("encode", more=settings)
        with Load([f"http://127.0.0.1:{one.port}" for one in answers], fleet.items, rate=RATE) as load:
            until(lambda: accepted(load, 0.0) and read(load, 0.0))
            until(lambda: encoded(encoder) > 0)
            before = encoded(encoder)
            began, ended = kill_the_master(group)
            until(lambda: accepted(load, ended) and read(load, ended))

        missing, twice = missing_events(f"http://127.0.0.1:{answers[0].port}", load)
        assert beyond(row, began, [when for _, _, when in missing]) == 0, missing
        assert twice == 0
        lists = [one for one in load.seen if one.path == RECOMMEND]
        assert {one.status for one in lists} == {200}
        if not missing:  # what is lost may be shown again
            assert load.wrong == []

        users = list(load.acknowledged)
        for number, user in enumerate(users):
            list_follows_event(answers, user, number)
        until(lambda: not fleet.outdated(users))
        for one in answers:
            until(lambda one=one: not figure(one, "gpt4rec_encode_waiting"))  # type: ignore[misc]
        until(lambda: not figure(encoder, "gpt4rec_encode_lag_entries"))
        assert encoded(encoder) > before
        assert figure(encoder, "gpt4rec_encode_entries_total", 'outcome="given_up"') == 0
        for one in (*answers, encoder):
            assert "request_failed" not in one.log
            assert "encoding_broke" not in one.log
            assert one.stop() == 0
