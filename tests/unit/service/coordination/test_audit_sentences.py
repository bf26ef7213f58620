"""Each entry of the audit as a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from service.coordination.audit_sentences import sentence

HEAD = {"id": "1", "at": "2026-01-01T12:00:00Z", "actor": "alice", "version": 3, "changed_at": "2026-01-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"action": "fallback", "mode": "fallback", "reason": "drill", "expires_at": "2026-01-01T13:00:00Z"},
            "forced the mode fallback until 2026-01-01T13:00:00Z: drill",
        ),
        ({"action": "fallback", "mode": "auto", "reason": None, "expires_at": None}, "returned to the mode auto"),
        ({"action": "model", "model": "b", "instead_of": "a", "reason": "x"}, "activated the model b instead of a: x"),
        (
            {"action": "model_refused", "model": "b", "instead": "a", "cause": "decoder.onnx is damaged"},
            "tried to activate the model b, which was refused (decoder.onnx is damaged); a stays",
        ),
        ({"action": "policies", "origin": "file", "segments": None}, "returned to the policies of the file"),
        (
            {"action": "policies", "origin": "operator", "segments": ["new", "active"]},
            "set the policies of the segments new, active",
        ),
        # Of another release.
        ({"action": "rules", "rule": "pin", "reason": "sale"}, "changed rules (rule pin): sale"),
        ({"action": "model"}, "activated the model None"),
    ],
)
def test_an_entry_says_what_was_done_and_why(entry: dict[str, Any], expected: str) -> None:
    assert sentence({**HEAD, **entry}) == expected
