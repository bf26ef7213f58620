"""Which entries of the audit match a filter."""

from __future__ import annotations

from typing import Any

from service.coordination.audit_filter import chosen

ENTRIES: list[dict[str, Any]] = [
    {
        "id": "3",
        "at": "2026-01-03T00:00:00Z",
        "actor": "bob",
        "action": "policies",
        "segments": ["all"],
        "reason": "Sale",
    },
    {
        "id": "2",
        "at": "2026-01-02T00:00:00Z",
        "actor": "ann",
        "action": "fallback",
        "mode": "fallback",
        "reason": "GPU",
    },
    {"id": "1", "at": "2026-01-01", "actor": "ann", "action": "policies", "origin": "file"},
]


def ids(**asked: Any) -> list[str]:
    given = {"actor": None, "action": None, "words": "", "limit": 10, **asked}
    return [entry["id"] for entry in chosen(ENTRIES, **given)["entries"]]


def test_filters_hold_together_and_words_are_found_in_the_sentence() -> None:
    assert ids() == ["3", "2", "1"]
    assert ids(actor="ann") == ["2", "1"]
    assert ids(actor="ann", action="policies") == ["1"]
    assert ids(words="sale SEGMENTS") == ["3"]
    assert ids(words="nothing like that") == []
    assert ids(limit=2) == ["3", "2"]
    assert ids(actor="nobody") == []


def test_what_there_is_to_choose_from_does_not_depend_on_the_filter() -> None:
    found = chosen(ENTRIES, actor="bob", action=None, words="", limit=1)
    assert (found["actors"], found["actions"]) == (["ann", "bob"], ["fallback", "policies"])
