"""What can be wrong with a data set, said so that a reader can mend it."""

from __future__ import annotations

from collections.abc import Iterable


class DataError(ValueError):
    """Bad input data: what is wrong, where (file, line or row numbers), and how to mend it."""

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if mend:
            lines.append(f"  mend:  {mend}")
        super().__init__("\n".join(lines))


class DownloadError(DataError):
    """A package that carries a data set could not be fetched, or is not the expected one."""


def places(file: str, unit: str, numbers: Iterable[int], shown: int = 5) -> str:
    """`log.csv, lines 3, 17 and 2 more` from the line (or row) numbers of the rows that are wrong."""
    found = list(numbers)
    text = ", ".join(str(n) for n in found[:shown])
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    plural = "" if len(found) == 1 else "s"
    return f"{file}, {unit}{plural} {text}{more}"


def quoted(values: Iterable[object], shown: int = 3) -> str:
    """A few offending values for a message, shortened and with control characters escaped."""
    found = list(values)
    text = ", ".join(repr(v if len(str(v)) <= 40 else f"{str(v)[:37]}...") for v in found[:shown])
    return text + (", …" if len(found) > shown else "")
