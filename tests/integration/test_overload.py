"""More load than a slowed model bears, on a real service: lower rungs answer, and nothing else suffers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from loadtests.harness.bench import Bench
from loadtests.harness.faulty_model import faulty
from loadtests.load.open_loop_driver import Record, drive_now
from loadtests.reliability import stress


@pytest.fixture(scope="module")
def bench(random_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("overload")
    return Bench(random_artifact, None, "", Console(quiet=True), folder / "results", quick=True)


def test_overload_costs_the_lists_that_are_too_many_their_rung_and_nobody_an_answer(bench: Bench) -> None:
    record = Record()
    with faulty(bench.artifact, **stress.OPS) as (service, control):
        users = stress.crowd(bench, service.url)
        control.set(run_ms=15.0, row_ms=15.0)
        drive_now(service.url, users.arrivals(10.0, 1.0, 0), warmup_s=0.0)
        with stress.watched(service.url, every_s=0.2) as watch:
            arrivals = users.arrivals(150.0, 3.0, 1)
            report = drive_now(service.url, arrivals, warmup_s=0.0, connections=64, record=record)
        attempts = stress.attempts(service.url)
    assert not report.errors
    rungs = Counter(answer.rung for answer in record.answers)
    assert rungs.keys() <= set(stress.RUNGS)
    assert rungs["full"] > 0
    # Two runs fit into the time of an answer: most lists are too many.
    assert rungs["item_cf"] > rungs["full"]
    assert report.reasons["overload"] > 0
    assert watch.samples
    assert attempts["failed"] == 0


def test_a_forced_fallback_asks_the_model_for_nothing(bench: Bench) -> None:
    with faulty(bench.artifact, **stress.OPS) as (service, _):
        users = stress.crowd(bench, service.url)
        stress.force(service.url, "fallback")
        before = stress.attempts(service.url)
        report = drive_now(service.url, users.arrivals(50.0, 0.5, 0), warmup_s=0.0)
        assert stress.attempts(service.url) == before
        stress.force(service.url, "auto")
        assert stress.ops_fallback(service.url)["mode"] == "auto"
    # A busy machine may leave no time for the neighbours.
    assert "item_cf" in report.rungs and set(report.rungs) <= {"item_cf", "popular"}
    assert set(report.reasons) == {"forced"}
