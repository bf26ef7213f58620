"""The data set that a log goes on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from loadtests.loop.random_logs import random_log
from model.data.dataset import Dataset, sequences
from model.data.errors import DataError
from model.online.attribution import attribute
from model.online.log_folder import LogFolder
from model.online.log_schema import frame_of
from model.online.partitions import LogRange
from model.online.training_data import extended
from service.artifact.features import SIGNAL_TYPES
from tests.support.data_builders import START_MS, tiny_dataset

SAME = ["user_id", "item_id", "timestamp", "event_type"]


def event(subject: str, item: str | None, time_ms: int, kind: str = "click", **more: Any) -> dict[str, Any]:
    return {"subject": subject, "item_id": item, "type": kind, "time_ms": time_ms, "received_ms": time_ms, **more}


def written(folder: Path, **rows: list[dict[str, Any]]) -> LogRange:
    log = LogFolder(folder)
    shown = {"list_id": "l", "subject": "", "time_ms": START_MS, "items": ["i1"]}
    for kind, listed in {"exposures": [shown], **rows}.items():
        log.write(kind, frame_of(kind, listed), "x")  # type: ignore[arg-type]
    return LogRange(log)


def rows(dataset: Dataset) -> set[tuple[Any, ...]]:
    return set(dataset.events.select(SAME).iter_rows())


def test_new_events_users_and_items_come_behind_the_old_ones(tmp_path: Path) -> None:
    base, later = tiny_dataset(users=5), START_MS * 2
    span = written(
        tmp_path,
        events=[
            event("u:u1", "i2", later, event_id="a"),
            event("u:u1", "i2", later, event_id="a"),
            event("u:u1", "i3", later + 1, "impression"),
            event("u:u1", None, later + 2, "search"),
            event("u:n%20%C3%A9", "new", later, "purchase", value=2.5),
            event("s:x", "i2", later + 3),
            event("", "i2", later),
        ],
        merges=[{"subject": "s:x", "into": "u:u3", "merged_ms": later + 9}],
    )
    found = extended(base, span)
    assert rows(found.dataset) - rows(base) == {
        ("u1", "i2", later, "click"),
        ("n é", "new", later, "purchase"),
        ("u3", "i2", later + 3, "click"),
    }
    assert found.counts() == {"new": 3, "made": 0, "erased": 0, "nobody": 1, "new_users": 1, "new_items": 1}
    assert found.dataset.items["item_id"].to_list() == [*base.items["item_id"], "new"]
    log = sequences(found.dataset)
    assert log.item_ids[: base.items.height] == base.items["item_id"].to_list() and log.user_ids[-1] == "n é"
    assert all((log.time_ms[log.user(u)][1:] >= log.time_ms[log.user(u)][:-1]).all() for u in range(log.n_users))
    again = extended(found.dataset, span)
    assert again.new == 0 and again.dataset.fingerprint == found.dataset.fingerprint


def test_an_erasure_reaches_the_older_data_and_made_traffic_is_left_out(tmp_path: Path) -> None:
    base, later = tiny_dataset(users=5), START_MS * 2
    fast = [event("u:bot", "i1", later + n, event_id=f"{n}") for n in range(100)]
    span = written(
        tmp_path, events=[*fast, event("u:u2", "i1", later + 5)],
        erased=[{"subject": "u:u2", "erased_ms": later}],
    )  # fmt: skip
    found = extended(base, span)
    assert found.dataset.events.filter(user_id="u2")["timestamp"].to_list() == [later + 5]
    assert (found.made, found.erased) == (100, base.events.filter(user_id="u2").height)
    with_bot = extended(base, span, made=True)
    assert with_bot.new == found.new + 100
    assert rows(extended(with_bot.dataset, span).dataset) == rows(found.dataset)


def test_what_is_learned_from_a_random_log_is_what_its_join_kept(tmp_path: Path) -> None:
    made = random_log(5, events=800, subjects=30, hours=6, start_ms=START_MS)
    tables = {kind: frame_of(kind, getattr(made, kind)) for kind in ("exposures", "events", "merges", "erased")}
    log = LogFolder(tmp_path)
    for kind, table in tables.items():
        log.write(kind, table, "x")  # type: ignore[arg-type]
    base = tiny_dataset(users=3)
    found = extended(base, LogRange(log, part_bytes=20_000))
    expected = set()
    joined = attribute(tables["exposures"], tables["events"], tables["merges"], tables["erased"])
    for row in joined.outcomes.iter_rows(named=True):
        if row["item_id"] is not None and row["type"] not in SIGNAL_TYPES and row["made"] is None and row["owner"]:
            expected.add((row["owner"].removeprefix("u:"), row["item_id"], row["time_ms"], row["type"]))
    assert rows(found.dataset) - rows(base) == expected and found.new == len(expected) > 100


def test_a_log_without_rows_adds_nothing_and_data_without_times_is_refused(tmp_path: Path) -> None:
    base = tiny_dataset(users=3)
    assert extended(base, LogRange(LogFolder(tmp_path))).new == 0
    scenes = replace(base, events=base.events.with_columns(scene=pl.lit("home")))
    span = written(tmp_path, events=[event("u:u1", "i1", START_MS * 2, list_id="none")])
    assert extended(scenes, span).dataset.events["scene"].null_count() == 1
    with pytest.raises(DataError, match="no times"):
        extended(tiny_dataset(users=3, has_time=False), LogRange(LogFolder(tmp_path)))
