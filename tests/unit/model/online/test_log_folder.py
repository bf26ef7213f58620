"""The folder of a log: what is written is read, by range and column, and nothing else is."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from model.online.log_folder import LogFolder
from model.online.log_schema import KINDS, SCHEMAS, LogError, entry_row, event_row, exposure_row, frame_of
from service.exposures.exposure import Exposure, erased_entry, event_entry, merged_entry, packed, shown_entry
from service.store.records import NewEvent

HOUR = 3_600_000


def events(*times: int) -> pl.DataFrame:
    rows = [{"subject": "u:a", "item_id": str(t), "type": "click", "time_ms": t, "received_ms": t} for t in times]
    return frame_of("events", rows)


def log_at(place: str, tmp_path: Path) -> LogFolder:
    return LogFolder(tmp_path / "log" if place == "local" else f"{place}{tmp_path.name}")


@pytest.mark.parametrize("place", ["local", "memory://"])
def test_rows_are_read_by_time_range_and_column(place: str, tmp_path: Path) -> None:
    log = log_at(place, tmp_path)
    paths = log.write("events", events(5, HOUR + 1, HOUR + 9, 30 * HOUR), "a-1")
    assert paths == [
        "events/date=1970-01-01/hour=00/a-1.parquet",
        "events/date=1970-01-01/hour=01/a-1.parquet",
        "events/date=1970-01-02/hour=06/a-1.parquet",
    ]
    assert log.read_all("events")["time_ms"].to_list() == [5, HOUR + 1, HOUR + 9, 30 * HOUR]
    part = log.read_all("events", ["item_id"], from_ms=HOUR + 2, until_ms=30 * HOUR)
    assert part.to_dict(as_series=False) == {"item_id": [str(HOUR + 9)]}
    assert log.size("events") > 0
    assert log.paths("events", from_ms=2 * HOUR) == paths[2:]


@pytest.mark.parametrize("place", ["local", "memory://"])
def test_writing_again_under_the_same_name_changes_nothing(place: str, tmp_path: Path) -> None:
    log = log_at(place, tmp_path)
    for _ in range(2):
        log.write("events", events(1, 2), "batch")
    assert len(log.read_all("events")) == 2
    assert len(log.paths("events")) == 1


def test_every_kind_keeps_its_columns(tmp_path: Path) -> None:
    log = LogFolder(tmp_path)
    for kind in KINDS:
        assert log.read_all(kind).schema == SCHEMAS[kind]
    log.write("erased", frame_of("erased", [{"subject": "u:a", "erased_ms": 3}]), "x")
    assert log.read_all("erased").rows() == [("u:a", 3)]


def test_a_file_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    log = LogFolder(tmp_path)
    [path] = log.write("events", events(1), "x")
    events(1).write_parquet(tmp_path / path, metadata={"gpt4rec_format": "7", "gpt4rec_kind": "events"})
    with pytest.raises(LogError, match=r"has format 7; this version reads format 2\n.*hour=00/x\.parquet"):
        log.read_all("events")
    events(1).write_parquet(tmp_path / path)
    with pytest.raises(LogError, match="has no format of this project"):
        log.read_all("events")
    (tmp_path / path).write_bytes(b"PAR1 half")
    with pytest.raises(LogError, match="damaged"):
        log.read_all("events")


def test_files_of_the_format_before_are_read_without_the_new_columns(tmp_path: Path) -> None:
    log = LogFolder(tmp_path)
    rows = frame_of("exposures", [{"list_id": "L", "time_ms": 1, "first_rank": 11, "asked": 3}])
    [path] = log.write("exposures", rows, "x")
    old = {"gpt4rec_format": "1", "gpt4rec_kind": "exposures"}
    rows.drop("first_rank", "asked").write_parquet(tmp_path / path, metadata=old)
    found = log.read_all("exposures", ["asked", "list_id", "first_rank"])
    assert found.rows() == [(None, "L", None)]
    assert log.read_all("exposures").schema == SCHEMAS["exposures"]


def test_what_is_not_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no exposures"):
        LogFolder(tmp_path).require_some()
    with pytest.raises(LogError, match="do not have the columns"):
        LogFolder(tmp_path).write("events", pl.DataFrame({"x": [1]}), "x")
    with pytest.raises(LogError, match="cannot name a file"):
        LogFolder(tmp_path).write("events", events(1), "../x")
    with pytest.raises(LogError, match="cannot be opened"):
        LogFolder("nosuch://bucket")


def test_whole_hours_before_a_moment_are_removed_but_erasures_stay(tmp_path: Path) -> None:
    log = LogFolder(tmp_path)
    log.write("events", events(1, HOUR + 1), "x")
    log.write("erased", frame_of("erased", [{"subject": "u:a", "erased_ms": 3}]), "x")
    assert log.remove_before(HOUR) == 1
    assert log.read_all("events")["time_ms"].to_list() == [HOUR + 1]
    assert len(log.read_all("erased")) == 1


def named(entry: tuple[Any, ...]) -> dict[str, bytes]:
    """The fields of an entry, as Redis gives them back."""
    values = (value if isinstance(value, bytes) else str(value).encode() for value in entry[1::2])
    return dict(zip(entry[::2], values, strict=True))


def test_what_the_service_writes_is_read() -> None:
    shown = Exposure(
        list_id="L", request_id="r", subject="u:a", time_ms=5, scene=None, k=2, items=["x", "y"],
        scores=np.array([-0.1, -0.7], np.float32), log_propensities=np.array([-1.5, 0.0]), drawn=1,
        set_log_propensity=None, strategy="top_p",
        parameters={"temperature": 1.2, "top_p": 0.9, "beam_width": None}, segment="new", explored=True,
        source="gpt4rec", scorers=("path",), rung="full", reason=None, model_version="m", policies_version="p",
        catalogue_version="c", arms={"e": "b"}, filter={"category": ["x"]}, excluded=3, history_version="",
        seed=2**62, first_rank=11, asked=None,
    )  # fmt: skip
    scores = np.array([-0.1, -0.7], np.float32)
    kind, row = entry_row("exposures", named(shown_entry(shown, packed(np.array([7, 9]), scores))))
    read = frame_of(kind, [row]).to_dicts()[0]
    expected = dict(shown) | {
        "scores": scores.tolist(), "log_propensities": [-1.5, 0.0], "scorers": ["path"], "seed": str(2**62),
        "arms": [{"experiment": "e", "arm": "b"}], "filter": '{"category":["x"]}', "candidates": [7, 9],
        "candidate_scores": scores.tolist(),
    }  # fmt: skip
    assert read == expected
    event = NewEvent("x", "click", 5, value=2.0, list_id="L")
    kind, row = entry_row("events", named(event_entry("u:a", event, "id", 9)))
    assert kind == "events" and frame_of(kind, [row]).row(0) == ("u:a", "x", "click", 5, "id", 2.0, None, None, "L", 9)
    merged = entry_row("events", named(merged_entry("s:1", "u:a", 7)))
    assert merged == ("merges", {"subject": "s:1", "into": "u:a", "merged_ms": 7})
    assert entry_row("exposures", named(erased_entry("u:a", 8))) == ("erased", {"subject": "u:a", "erased_ms": 8})


def test_entries_of_the_streams_become_rows() -> None:
    body = (
        b'{"list_id":"L","time_ms":5,"items":["x"],"scores":[-0.5],"log_propensities":[-1.5],"drawn":1,'
        b'"parameters":{"temperature":1.2,"top_p":0.9,"beam_width":5},"arms":{"b":"2","a":"1"},'
        b'"filter":{"category":["x"]},"policies_version":3,"unknown":1}'
    )
    packed = struct.pack("<I2I2f", 2, 7, 9, -0.5, -1.0)
    row_of_body = exposure_row("u:a", body, packed)
    row: dict[str, Any] = frame_of("exposures", [row_of_body]).to_dicts()[0]
    assert row["subject"] == "u:a" and row["candidates"] == [7, 9] and row["candidate_scores"] == [-0.5, -1.0]
    assert row["arms"] == [{"experiment": "a", "arm": "1"}, {"experiment": "b", "arm": "2"}]
    assert row["filter"] == '{"category":["x"]}' and row["policies_version"] == "3" and row["segment"] is None
    assert frame_of("events", [event_row("u:a", b'{"item_id":"x","time_ms":1}')])["item_id"].to_list() == ["x"]
    assert entry_row("events", {"v": b"1", "s": b"u:a", "erased": b"5"}) == (
        "erased",
        {"subject": "u:a", "erased_ms": 5},
    )
    merged = {"v": b"1", "s": b"u:a", "merged": b'{"from":"s:1","to":"u:a","time_ms":7}'}
    assert entry_row("events", merged) == ("merges", {"subject": "s:1", "into": "u:a", "merged_ms": 7})
    assert entry_row("exposures", {"v": b"1", "s": b"u:a", "e": body, "c": packed}) == ("exposures", row_of_body)
    with pytest.raises(LogError, match="has format 2; this version reads format 1"):
        entry_row("events", {"v": b"2", "s": b"u:a", "e": b"{}"})
    with pytest.raises(LogError, match="12 bytes, not the 20"):
        exposure_row("u:a", b"{}", packed[:12])
    with pytest.raises(LogError, match="not JSON"):
        event_row("u:a", b"{")
