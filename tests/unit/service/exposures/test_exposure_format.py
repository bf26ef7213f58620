"""What entries of the streams hold, byte by byte: readers in other programs rely on it."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from service.exposures.exposure import (
    Exposure,
    erased_entry,
    event_entry,
    merged_entry,
    packed,
    shard_of,
    shown_entry,
    subject_name,
    unpacked,
)
from service.store.records import NewEvent, Subject

LIST: Exposure = {
    "list_id": "01J", "request_id": "r", "subject": "u:1", "time_ms": 5, "scene": None, "k": 3, "items": ["a", "b"],
    "scores": np.array([0.1, -2.0], np.float32), "log_propensities": np.array([-0.5, 0.0], np.float32), "drawn": 1,
    "set_log_propensity": None, "strategy": "top_p",
    "parameters": {"temperature": 1.0, "top_p": 0.9, "beam_width": None}, "segment": "new", "explored": True,
    "source": "gpt4rec", "scorers": ("path", "dense"), "rung": "full", "reason": None, "model_version": "m",
    "policies_version": "p", "catalogue_version": "c", "arms": {}, "filter": {"category": ["War"]},
    "excluded": 2, "history_version": "h", "seed": 7, "first_rank": 1, "asked": None,
}  # fmt: skip


def test_an_exposure_is_json_with_the_fields_of_format_1_in_their_order() -> None:
    entry = shown_entry(LIST, b"\1\0\0\0")
    assert entry[:5] == ("v", "1", "s", "u:1", "e")
    assert entry[6:] == ("c", b"\1\0\0\0")
    body = orjson.loads(entry[5])
    assert list(body) == [
        "list_id", "request_id", "subject", "time_ms", "scene", "k", "items", "scores", "log_propensities", "drawn",
        "set_log_propensity", "strategy", "parameters", "segment", "explored", "source", "scorers", "rung", "reason",
        "model_version", "policies_version", "catalogue_version", "arms", "filter", "excluded", "history_version",
        "seed", "first_rank", "asked",
    ]  # fmt: skip
    assert body["scores"] == [0.1, -2.0]
    assert (body["log_propensities"], body["arms"], body["set_log_propensity"]) == ([-0.5, 0.0], {}, None)


def test_a_list_whose_law_is_unknown_has_no_propensities_and_one_that_was_not_drawn_no_candidates() -> None:
    entry = shown_entry({**LIST, "log_propensities": None})
    assert orjson.loads(entry[5])["log_propensities"] is None
    assert len(entry) == 6


def test_candidates_come_back_as_they_were_packed() -> None:
    items, scores = np.array([3, 70_000, 0], np.int64), np.array([0.5, -1e30, 2.0], np.float32)
    data = packed(items, scores)
    assert data[:8] == b"\3\0\0\0\3\0\0\0"
    back = unpacked(data)
    assert back[0].tolist() == items.tolist()
    assert np.array_equal(back[1], scores)
    with pytest.raises(ValueError, match="28 bytes"):
        unpacked(data[:-1])


def test_subjects_are_named_as_in_the_keys_and_have_one_shard() -> None:
    user = Subject("user", "a b{}")
    assert subject_name(user) == "u:a%20b%7B%7D"
    assert subject_name(None) == ""
    # A change of the hash would hide what is stored from erasures.
    assert [shard_of(f"u:{n}", 8) for n in range(8)] == [4, 2, 0, 6, 5, 3, 1, 7]


def test_entries_of_events_merges_and_erasures() -> None:
    event = NewEvent("a", "click", 9, value=2.5, request_id="r", list_id="l")
    assert orjson.loads(event_entry("u:1", event, "id", 11)[5]) == {
        "item_id": "a", "type": "click", "time_ms": 9, "event_id": "id", "value": 2.5, "query": None,
        "request_id": "r", "list_id": "l", "received_ms": 11,
    }  # fmt: skip
    merged = merged_entry("s:1", "u:1", 12)
    assert merged[:5] == ("v", "1", "s", "u:1", "merged")
    assert orjson.loads(merged[5]) == {"from": "s:1", "to": "u:1", "time_ms": 12}
    assert erased_entry("u:1", 13) == ("v", "1", "s", "u:1", "erased", "13")
