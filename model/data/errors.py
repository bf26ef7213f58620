"""Errors in input data, worded so that the reader can fix the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model.errors import error_text


class DataError(ValueError):
    """The input data cannot be used.

    Attributes:
        what: What is wrong.
        where: The file, with the line (or row) numbers or the column.
        fix: How to fix it.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(error_text(what, where, fix))


class NothingInsideError(DataError):
    """A file holds no row. Of several files, as Spark writes them, some may."""


class DownloadError(DataError):
    """A package that carries a data set could not be downloaded, or its content is not the published one."""


# Line numbers of several files: this times the position of the file, plus the line.
FILE_STEP = 2**40


def places(file: str | Sequence[str], unit: str, numbers: Iterable[int], shown: int = 5) -> str:
    """Names the rows that are wrong, such as `log.csv, lines 3, 17 and 2 more`.

    Args:
        file: Name of the file; or of several, whose numbers are then offset by `FILE_STEP`.
        unit: What the numbers count: "line", "row" or "entry".
        numbers: Numbers of the wrong rows, counted from 1.
        shown: The most numbers to list.
    """
    listed = list(numbers)
    if not isinstance(file, str):
        positions = [number // FILE_STEP for number in listed]
        first = positions[0] if positions else 0
        inside = [number % FILE_STEP for number, position in zip(listed, positions, strict=True) if position == first]
        elsewhere = len(set(positions) - {first})
        more_files = f", and in {elsewhere} other file{'' if elsewhere == 1 else 's'}" if elsewhere else ""
        return places(file[first], unit, inside, shown) + more_files
    text = ", ".join(str(n) for n in listed[:shown])
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    plural = "" if len(listed) == 1 else "s"
    return f"{file}, {unit}{plural} {text}{more}"


def quoted(values: Iterable[object], shown: int = 3) -> str:
    """Quotes a few wrong values for a message, shortened and with control characters escaped."""
    listed = list(values)
    text = ", ".join(repr(v if len(str(v)) <= 40 else f"{str(v)[:37]}...") for v in listed[:shown])
    return text + (", …" if len(listed) > shown else "")
