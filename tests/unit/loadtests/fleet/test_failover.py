"""What the fail-over table counts, and how it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.common import results
from loadtests.draw import fleet_failover
from loadtests.fleet import failover, fleet_criteria
from loadtests.fleet.failover_rows import NAMES, ROWS
from loadtests.fleet.failover_scene import Row, beyond


def row(may_lose: tuple[float, float] | None) -> Row:
    return Row("cluster", "x", "x is done", "memory", "promised", lambda _: None, may_lose)


@pytest.mark.parametrize(
    ("may_lose", "expected"),
    [(None, 4), ((1.0, 0.5), 2), ((10.0, 10.0), 0)],
)
def test_only_what_the_promise_allows_may_be_lost(may_lose: tuple[float, float] | None, expected: int) -> None:
    assert beyond(row(may_lose), 100.0, [98.9, 99.1, 100.4, 100.6]) == expected


def test_every_happening_is_there_and_each_row_has_a_name_of_its_own() -> None:
    assert len(NAMES) == len(ROWS) >= 10
    assert {one.kind for one in ROWS} == {"cluster", "sentinel"}
    assert {one.durability for one in ROWS} == {"memory", "aof", "replica"}
    assert {one.durability for one in ROWS if one.cut} >= {"memory", "replica"}
    assert not [one.name for one in ROWS if one.durability == "replica" and one.may_lose is not None]


def test_each_side_of_a_cut_has_servers() -> None:
    for one in ROWS:
        if one.cut:
            assert set(one.cut) == {"near", "far"}, one.name
            assert len(one.cut) == 6, one.name  # three primaries with a replica, or three servers and three Sentinels


def entry(**changed: Any) -> dict[str, Any]:
    return {
        "kind": "cluster", "happening": "x", "text": "x is done", "durability": "memory", "promise": "promised",
        "events": 5, "refused": 1, "refused_s": 0.5, "lost": 0, "beyond": 0, "lost_from_s": None, "lost_to_s": None,
        "twice": 0, "lists": 7, "without_history": 2, "5xx": 0, "unanswered": 0, "wrong": 0, "late": 0,
        "late_percent": 0.0, "notes": ["noted"], **changed,
    }  # fmt: skip


def test_the_criteria_are_over_all_rows_that_are_recorded(tmp_path: Path) -> None:
    first, second = ROWS[:2]
    failover.keep(second, entry(beyond=2, lost=3, lost_from_s=-0.1, lost_to_s=0.2, late_percent=0.5), tmp_path)
    failover.keep(first, entry(late_percent=2.0, **{"5xx": 1}), tmp_path)
    found = {one["criterion"]: (one["value"], one["holds"]) for one in results.read_rows(tmp_path / "fleet.json")}
    assert found == {
        fleet_criteria.FAILOVER_LOST: (2, False),
        fleet_criteria.FAILOVER_5XX: (1, False),
        fleet_criteria.FAILOVER_LATE: (2.0, False),
        fleet_criteria.FAILOVER_ROWS: (2, False),
    }
    kept = results.load(failover.NAME, tmp_path)
    assert kept is not None and list(kept["rows"]) == [first.name, second.name]
    drawn = fleet_failover.failovers(kept)
    assert "| **2** |" in drawn
    assert "Those lost were acknowledged 0.10 s before it began to 0.20 s after it began." in drawn
