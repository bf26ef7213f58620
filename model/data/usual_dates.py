"""Ways to write dates that are no ISO 8601, so that a message can say which `--date-format` reads them."""

from __future__ import annotations

import polars as pl

_DATES = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d",
    "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%b %d %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y",
)  # fmt: skip
_CLOCKS = (
    "", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p", " %I.%M.%S%.f %p", ", %H:%M", ", %H:%M:%S",
    ", %I:%M %p", ", %I:%M:%S %p", " %H:%M:%S %z",
)  # fmt: skip
_WHOLE = ("%d/%b/%Y:%H:%M:%S %z", "%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %Y", "%a %b %d %Y %H:%M:%S")
_SAMPLE = 1000
_SHOWN = 2


def formats_of(text: pl.Series) -> list[str]:
    """Returns the formats, at most two, that read every one of these times; the first of them is the likeliest.

    Args:
        text: [times] times as text, without nulls.
    """
    sample = text.head(_SAMPLE)
    forms = (*_WHOLE, *(date + clock for date in _DATES for clock in _CLOCKS))
    fitting = [form for form in forms if _reads(form, sample.head(1)) and _reads(form, sample)]
    return [form for form in fitting if _reads(form, text)][:_SHOWN]


def _reads(form: str, text: pl.Series) -> bool:
    try:
        dates = text.str.to_datetime(form, strict=False)
    except pl.exceptions.PolarsError:
        return False
    # A year of two digits is no year 24, which %Y reads as well.
    return dates.null_count() == 0 and bool((dates.dt.year() >= 1900).all())
