"""What the command that sends hostile requests compares and records, on answers written by hand."""

from __future__ import annotations

import itertools
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadtests.common import results
from loadtests.harness.bench import Bench
from loadtests.load.open_loop_driver import Answer
from loadtests.load.replay import RECOMMEND
from loadtests.reliability import hostile
from loadtests.reliability.hostile_requests import KINDS


def answers(begin_s: float, end_s: float, ms: float, status: int | str = 200) -> list[Answer]:
    took = ms / 1e3 if status == 200 else None
    return [Answer(RECOMMEND, begin_s + n * (end_s - begin_s) / 100, took, status, "full") for n in range(100)]


def judged(found: list[Answer]) -> dict[str, Any]:
    return hostile.judged(found, 10.0, 20.0, lead_s=2.0, after_s=5.0)


def test_the_hostile_phase_is_compared_with_the_calm_ones_around_it() -> None:
    excluded = [*answers(0.0, 2.0, 500.0), *answers(20.0, 25.0, 500.0)]
    found = judged([*excluded, *answers(2.0, 10.0, 10.0), *answers(10.0, 20.0, 14.0), *answers(25.0, 30.0, 10.0)])
    assert (found["calm"]["requests"], found["hostile"]["requests"]) == (200, 100)
    assert found["ratio"] == pytest.approx(1.4, rel=0.01)


def test_errors_are_counted_in_their_phase_and_without_answers_there_is_no_ratio() -> None:
    found = judged([*answers(2.0, 10.0, 10.0), *answers(10.0, 20.0, 1.0, 503)])
    assert found["hostile"]["errors"] == {"/recommend 503": 100} and found["calm"]["errors"] == {}
    assert found["ratio"] is None


@pytest.mark.parametrize(
    ("more", "broken"),
    [
        ({}, set()),
        ({"ratio": 1.6}, {"others' p99"}),
        ({"ratio": None}, {"others' p99"}),
        ({"peak_mib": 400.0}, {"memory"}),
        ({"outcomes": {"400": 9, "400 200": 1}}, {"answered twice"}),
        ({"hostile": {"requests": 100, "errors": {"/recommend 503": 1}}}, {"others' errors"}),
    ],
)
def test_each_promise_has_a_row_that_says_whether_it_was_kept(
    tmp_path: Path, more: dict[str, Any], broken: set[str]
) -> None:
    found = {
        "ratio": 1.1, "before_mib": 150.0, "peak_mib": 200.0, "grows_max_mib": 96.0, "sent": 10,
        "outcomes": {"422": 9, "no answer": 1}, "hostile": {"requests": 100, "errors": {}}, **more,
    }  # fmt: skip
    bench = Bench(tmp_path, None, "command", Console(file=StringIO()), tmp_path, rows="reliability.json")
    hostile.rows(bench, KINDS[0], found)
    kept = results.read_rows(tmp_path / "reliability.json")
    assert {row["criterion"].partition(": ")[2] for row in kept if not row["holds"]} == broken
    assert len(kept) == 4


def test_no_filter_is_sent_twice_and_bodies_are_as_large_as_they_say(random_artifact: Path) -> None:
    made = {kind.name: list(itertools.islice(kind.make(random_artifact), 8)) for kind in KINDS}
    assert len({pieces[-1] for pieces in made["filters"]}) == 8
    for head, body in made["error reports"]:
        assert 900_000 < len(body) <= 2**20 and b"Content-Length: %d\r\n" % len(body) in head
    for head, body in made["bodies held open"]:
        assert b"Content-Length: %d\r\n" % (len(body) + 1) in head
