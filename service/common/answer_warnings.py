"""Warnings of an answer: what the request said that had no effect, or not the one its sender may expect."""

from __future__ import annotations

from collections.abc import Iterable

from service.common.printable import printable, shortened

# Values that one warning names, and characters of a value that it shows.
NAMED_MAX = 10
SHOWN_MAX = 64


class Warnings:
    """Collects the warnings of one answer.

    Their number and size are bounded: there is one for each kind, and each names a few of the values it is about. They
    are safe to print.

    Attributes:
        texts: The warnings, in the order in which they were added.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str, values: Iterable[str] = ()) -> None:
        """Adds a warning.

        Args:
            text: A sentence without its full stop.
            values: The values that it is about; the first few are appended.
        """
        named = list(values)
        shown = ", ".join(printable(shortened(value, SHOWN_MAX)) for value in named[:NAMED_MAX])
        more = f" and {len(named) - NAMED_MAX} more" if len(named) > NAMED_MAX else ""
        self.texts.append(f"{text}: {shown}{more}" if named else text)

    def unless_empty(self, text: str, values: Iterable[str]) -> None:
        """Adds a warning about some values, if there are any; a value given twice is named once."""
        if found := list(dict.fromkeys(values)):
            self.add(text, found)
