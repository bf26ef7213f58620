"""Rates of groups of lists, against plain sums, and the same whatever the log is cut into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest

from loadtests.loop.random_logs import random_log
from model.online.grouped import OTHER, GroupSums, largest
from model.online.log_folder import LogFolder
from model.online.log_schema import frame_of
from model.online.online_report import Options, online_report
from model.online.partitions import LogRange, attributed

HOUR = 3_600_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> LogFolder:
    made = random_log(3, events=1500, subjects=40, hours=8, start_ms=HOUR)
    for n, row in enumerate(made.exposures):
        row |= {"model_version": f"m{n % 2}", "segment": f"s{n % 7}", "strategy": "top_p", "rung": "full"}
        row["arms"] = [{"experiment": "e", "arm": "ab"[n % 2]}] if n % 3 else []
    folder = LogFolder(tmp_path_factory.mktemp("log"))
    folder.write("exposures", frame_of("exposures", made.exposures), "x")
    folder.write("events", frame_of("events", made.events), "x")
    folder.write("merges", frame_of("merges", made.merges), "x")
    folder.write("erased", frame_of("erased", made.erased), "x")
    return folder


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers of a report by their places."""
    if isinstance(value, dict | list):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(below, f"{place}.{name}")
    elif not isinstance(value, str):
        yield place, value


def test_a_log_in_parts_says_what_the_whole_log_says(log: LogFolder) -> None:
    whole = online_report(LogRange(log))
    assert dict(flat(online_report(LogRange(log, part_bytes=20_000)))) == pytest.approx(dict(flat(whole)))
    assert whole["lists"]["counted"] > 100 and whole["events"]["by_mark"]["inferred"] > 10
    [one] = attributed(LogRange(log))
    parts = list(attributed(LogRange(log, part_bytes=20_000)))
    assert len(parts) > 2
    together = pl.concat([part.outcomes for part in parts])
    columns = ["subject", "event_id", "time_ms", "received_ms", "type", "item_id", "list_id", "mark", "made"]
    assert together.select(columns).sort(columns).equals(one.outcomes.select(columns).sort(columns))


def test_groups_beyond_the_largest_are_one_group(log: LogFolder) -> None:
    groups = online_report(LogRange(log), Options(top=3))["groups"]
    assert [row["group"] for row in groups["segment"]][-1] == OTHER and len(groups["segment"]) == 4
    assert {row["group"] for row in groups["arm"]} == {"e=a", "e=b"}
    assert [row["group"] for row in groups["position"]] == ["1", "2", "3", OTHER]
    for dimension in ("model", "segment", "strategy", "rung"):
        assert sum(row["lists"] for row in groups[dimension]) == groups["all"][0]["lists"]


def test_a_range_holds_the_lists_that_were_shown_in_it(log: LogFolder) -> None:
    whole = online_report(LogRange(log))["lists"]["served"]
    early = online_report(LogRange(log, until_ms=4 * HOUR))["lists"]["served"]
    late = online_report(LogRange(log, from_ms=4 * HOUR))["lists"]["served"]
    assert early + late == whole and early and late


def test_rates_are_ratios_of_sums_over_subjects() -> None:
    rng = np.random.default_rng(0)
    owners = [f"u:{i}" for i in rng.integers(30, size=400)]
    clicks = rng.integers(2, size=400).astype(float)
    sums = GroupSums(["clicks"])
    rows = pl.DataFrame({"group": ["g"] * 400, "owner": owners, "clicks": clicks})
    for _, part in rows.group_by(pl.col("owner").hash() % 3):
        sums.add(part)
    [(group, units, subjects, rates)] = sums.rates()
    y, n = (np.bincount([int(o[2:]) for o in owners], weights, minlength=30) for weights in (clicks, None))
    value = y.sum() / n.sum()
    error = np.sqrt(30 / 29 * ((y - value * n) ** 2).sum()) / n.sum()
    assert (group, units, subjects) == ("g", 400, 30)
    assert rates["clicks"].value == pytest.approx(value)
    assert rates["clicks"].high == pytest.approx(value + 2.04523 * error, rel=1e-5)


def test_a_rate_that_does_not_vary_has_no_interval() -> None:
    sums = GroupSums(["clicks"])
    sums.add(pl.DataFrame({"group": ["g"] * 3, "owner": ["a", "b", "b"], "clicks": [0.0, 0.0, 0.0]}))
    rate: Any = sums.rates()[0][3]["clicks"]
    assert (rate.value, rate.low, rate.high) == (0, None, None)


def test_the_largest_groups_are_found_and_ties_go_by_name() -> None:
    assert largest([("b", 2), ("a", 2), ("c", 5)], 2) == {"c", "a"}
