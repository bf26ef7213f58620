"""The replay: what is loaded first, what is replayed, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from loadtests.load.open_loop_driver import Arrival, LoadError
from loadtests.load.replay import EVENTS, RECOMMEND, Replay, User, read

NOW = 1_800_000_000_000
HOUR = 3_600_000


def user(name: str, *times: int, begins: tuple[int, ...] = (0,)) -> User:
    items = [f"{name}{n}" for n in range(len(times))]
    return User(name, items, ["click"] * len(times), np.array(times, np.int64), begins)


def replay(users: list[User], monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[Replay, list[Arrival]]:
    """A replay whose service takes everything, and what it was sent beforehand."""
    sent: list[Arrival] = []

    def taken(_url: str, requests: list[Arrival], **_options: Any) -> list[bytes]:
        sent.extend(requests)
        return []

    monkeypatch.setattr("loadtests.load.replay.send_beforehand", taken)
    return Replay(users, now_ms=NOW, **more), sent


def events_of(arrivals: list[Arrival]) -> list[dict[str, Any]]:
    return [event for a in arrivals if a.path == EVENTS for event in orjson.loads(a.body)["events"]]


def test_sessions_follow_the_log_and_every_event_is_followed_by_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sent = replay([user("a", *range(0, 10_000, 1000)), user("b", *range(500, 10_500, 1000))], monkeypatch,
                        earlier=0.5)  # fmt: skip
    made.prepare("", 1)
    assert [e["item_id"] for e in events_of(sent)] == [f"{u}{n}" for u in "ab" for n in range(5)]
    replayed = made.arrivals(22.0, 0.9, 0)
    for name in "ab":
        own = [a for a in replayed if f'"user_id":"{name}"'.encode() in a.body]
        paths = [a.path for a in own]
        assert paths[0] == RECOMMEND
        assert paths[1:5] == [EVENTS, RECOMMEND, EVENTS, RECOMMEND][: len(paths) - 1]
        items = [e["item_id"] for e in events_of(own)]
        assert items == [f"{name}{n}" for n in range(5, 5 + len(items))]


def test_times_move_by_one_constant_and_none_lies_in_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sent = replay([user("a", 0, HOUR, 5 * HOUR, 6 * HOUR)], monkeypatch, earlier=0.5)
    made.prepare("", 1)
    times = [e["timestamp"] for e in events_of([*sent, *made.arrivals(1000.0, 0.003, 0)])]
    assert np.diff(times).tolist() == [HOUR, 4 * HOUR, HOUR][: len(times) - 1]
    assert max(times) < NOW


def test_the_same_seed_replays_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    users = [user(name, *range(0, 30_000, 1000)) for name in "abcdef"]
    streams = []
    for seed in (1, 1, 2):
        made, _ = replay(users, monkeypatch, seed=seed, active=3, recommends=0.7)
        made.prepare("", 50)
        streams.append(made.arrivals(40.0, 1.0, seed))
    assert streams[0] == streams[1] != streams[2]


def test_a_log_that_is_used_up_comes_again_under_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sent = replay([user("a", *range(0, 10_000, 1000))], monkeypatch)
    assert made.prepare("", 12) == 3
    assert made.names() == ["a", "a~2", "a~3"]
    assert {e["user_id"] for e in events_of(sent)} == {"a", "a~2", "a~3"}
    assert [a.path for a in sent].count(RECOMMEND) == 3
    with pytest.raises(LoadError, match="prepared"):
        made.arrivals(1000.0, 1.0, 0)


def test_only_the_last_events_of_a_long_history_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sent = replay([user("a", *range(1000))], monkeypatch, earlier=0.8, longest=30)
    made.prepare("", 1)
    assert [e["item_id"] for e in events_of(sent)] == [f"a{n}" for n in range(770, 800)]


def write(folder: Path, **columns: list[Any]) -> Path:
    rows = len(columns["user_id"])
    base = {"event_type": ["view"] * rows, "value": [None] * rows}
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "session_id": pl.String}
    pl.DataFrame({**base, **columns}, schema_overrides=schema).write_parquet(folder / "events.parquet")
    return folder


@pytest.mark.parametrize(
    ("timestamp", "session_id", "begins"),
    [
        ([0, 1000, 2 * HOUR, 2 * HOUR + 1], [None] * 4, [0, 2]),
        ([0, 1000, 2 * HOUR, 2 * HOUR + 1], ["s", "t", "t", "u"], [0, 1, 3]),
        ([None] * 4, [None] * 4, [0]),
    ],
    ids=["gap", "session", "no-times"],
)
def test_a_session_begins_after_a_gap_or_where_the_log_says_so(
    tmp_path: Path, timestamp: list[int | None], session_id: list[str | None], begins: list[int]
) -> None:
    folder = write(tmp_path, user_id=["u"] * 4, item_id=list("abcd"), timestamp=timestamp, session_id=session_id)
    (found,) = read(folder)
    assert (found.name, found.item, list(found.begins)) == ("u", list("abcd"), begins)
    assert np.all(np.diff(found.time_ms) >= 0)


def test_a_folder_that_is_no_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="not a data set"):
        read(tmp_path)
