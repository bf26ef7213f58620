"""What reaches a terminal is text, whatever was stored."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.common.printable import printable


@given(st.text())
def test_no_control_character_is_left_and_all_else_stays(text: str) -> None:
    safe = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in safe)
    assert all(c in safe for c in text if c.isprintable())
    assert printable(safe) == safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("Crème brûlée 日本", "Crème brûlée 日本"),
    ],
)
def test_it_is_shown_as_it_would_be_typed(text: str, shown: str) -> None:
    assert printable(text) == shown
