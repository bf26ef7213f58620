"""Makes text from elsewhere safe to print: a reason, a title or an id may be long and hold escape sequences.

A terminal obeys control characters: they can hide lines, rename the window, or forge an answer.
"""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), line and paragraph separators, and what reorders text (bidirectional controls).
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Returns the text on one line, with each character that a terminal would obey as an escape such as \x1b."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), text)


def shortened(text: str, most: int) -> str:
    """Returns a text, cut after `most` characters and ended by an ellipsis if it is longer."""
    return text if len(text) <= most else text[:most] + "…"
