"""What Redis acknowledged of the record outlives the service; the command that measures what recording costs runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from redis import Redis

from loadtests.harness.paired_blocks import more_of
from loadtests.harness.scraped import scraped
from loadtests.loop.recording_cost import FIGURES, measure
from tests.support.processes import PATIENT, Serve, serve
from tests.support.valkey import Valkey


def answered(service: Serve, lists: int) -> list[str]:
    """Ids of the lists of this many answers."""
    answers = [service.client.post("/recommend", json={"user_id": f"u{n}", "k": 3}) for n in range(lists)]
    return [answer.json()["list_id"] for answer in answers]


def recorded(valkey: Valkey) -> list[str]:
    """Ids of the lists in the streams."""
    client: Any = Redis.from_url(valkey.url)
    try:
        keys = list(client.scan_iter(match="gpt4rec:exposures:*"))
        return [orjson.loads(fields[b"e"])["list_id"] for key in keys for _, fields in client.xrange(key)]
    finally:
        client.close()


def test_a_crash_of_the_service_loses_no_list_that_redis_acknowledged(
    random_artifact: Path, tmp_path: Path, valkey: Valkey
) -> None:
    with serve(tmp_path, "--artifact", str(random_artifact), "--redis", valkey.url, **PATIENT) as service:
        lists: list[str] = []
        sure = 0.0
        while not sure:
            lists += answered(service, 20)
            figures = scraped(str(service.client.base_url))
            sure = figures['gpt4rec_exposures_total{outcome="recorded"}']
            waiting = figures['gpt4rec_exposures_waiting{stream="exposures"}']
            assert sure + waiting == len(lists)
        lists += answered(service, 5)
        service.kill9()
    found = recorded(valkey)
    assert len(set(found)) == len(found)
    assert set(lists[: int(sure)]) <= set(found) <= set(lists)


def test_the_cost_of_recording_is_measured_in_pairs(random_artifact: Path) -> None:
    pairs = list(measure(random_artifact, rounds=1, pairs=1, requests=4, at_once=1, settle_s=0.1))
    assert [min(block.cpu_us, block.median_ms, block.p99_ms) > 0 for pair in pairs for block in pair] == [True, True]
    for figure in FIGURES:
        mean, low, high = more_of(pairs * 2, figure)
        assert low <= mean <= high
