"""Parses time columns into int64 UTC milliseconds.

The magnitude of the numbers gives their unit, which has to be the same in every row. A column that mixes units, or
dates with and without a zone, is refused, because either reading would be a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from model.data.errors import DataError, places, quoted
from model.data.usual_dates import formats_of

# From 1973 to 5138 the four units do not overlap: 1e8 s is 1973-03-03, 1e11 s is 5138.
_UNITS: tuple[tuple[str, int, int], ...] = (
    ("seconds", 10**8, 10**11),
    ("milliseconds", 10**11, 10**14),
    ("microseconds", 10**14, 10**17),
    ("nanoseconds", 10**17, 9 * 10**18),
)
_TO_MS = {"seconds": (1000, 1), "milliseconds": (1, 1), "microseconds": (1, 1000), "nanoseconds": (1, 10**6)}
DAY_MS = 86_400_000
# Dates of digits alone → what a year counts for in them.
_DIGITS = {"%Y%m%d": 10**4, "%Y%m%d%H%M": 10**8, "%Y%m%d%H%M%S": 10**10}
_YEAR_1900_MS = -2_208_988_800_000
_YEAR_10000_MS = 253_402_300_800_000

# 1954 to 2119, as spreadsheets count days.
_SPREADSHEET_DAYS = (20_000, 80_000)

# From here on, a float in 32 bits stands for several seconds, in 16 bits for none.
_COARSE = (pl.Float16, pl.Float32)

_NUMBER = r"^[+-]?\d+(\.\d+)?([eE][+-]?\d+)?$"
_ZONE = r"\s?(Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"  # PostgreSQL writes +00, BigQuery UTC behind a blank
_DATE = rf"^(\d{{4}}-\d{{2}}-\d{{2}})(?:[T ](\d{{2}}:\d{{2}})(:\d{{2}}(?:[.,]\d{{1,9}})?)?{_ZONE}?)?$"
_WITHOUT_TIMES = "to import without times, add --map time="


@dataclass(frozen=True)
class Times:
    """A parsed time column.

    Attributes:
        ms: [rows] int64 UTC milliseconds, null where the source has no time.
        read_as: How the column was understood, for the report.
    """

    ms: pl.Series
    read_as: str


@dataclass(frozen=True)
class Place:
    """Where a column comes from.

    Attributes:
        file: Name of the file.
        numbers: [rows] line (or row) numbers.
        unit: What `numbers` counts: "line", "row" or "entry".
        column: Name of the column in the file, if the place is one column.
        files: Names of the files, where they are several, as in `SourceTable`.
    """

    file: str
    numbers: pl.Series
    unit: str = "line"
    column: str | None = None
    files: tuple[str, ...] = ()

    def locate(self, wrong: pl.Series) -> str:
        """Names the first rows that the mask `wrong` [rows] selects."""
        rows = places(self.files or self.file, self.unit, self.numbers.filter(wrong).to_list())
        return f"{rows}, column {self.column}" if self.column else rows

    def whole(self, values: pl.Series) -> str:
        """Names the column of these values, without a row."""
        return f"{self.file}, column {self.column or values.name}"


def iso_utc(ms: int) -> str:
    """Formats UTC milliseconds as a date with seconds, such as `2026-01-31T12:00:00Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_times(column: pl.Series, place: Place, now_ms: int) -> Times:
    """Parses a time column of any type.

    Args:
        column: [rows] numbers, text, dates or datetimes.
        place: Where the column comes from.
        now_ms: The time of the import in UTC milliseconds.

    Raises:
        DataError: A value is not a time, the column mixes units or zones, or a time is more than a day after `now_ms`.
    """
    if column.dtype in _COARSE and not column.fill_nan(None).is_null().all():
        raise DataError(
            f"times of type {column.dtype} have lost digits: events minutes apart have the same time",
            where=place.whole(column),
            fix=f"write them again from their source, as 64-bit numbers or as datetimes; {_WITHOUT_TIMES}",
        )
    if column.dtype.is_integer() or column.dtype.is_float():
        times = _from_numbers(column, place)
    elif isinstance(column.dtype, pl.Datetime):
        zone = column.dtype.time_zone
        read_as = f"dates ({zone})" if zone else "dates without a zone, read as UTC"
        times = Times(column.dt.timestamp("ms"), read_as)
    elif column.dtype == pl.Date:
        times = Times(column.cast(pl.Datetime("ms")).dt.timestamp("ms"), "days, read as UTC")
    elif column.dtype == pl.String:
        times = _from_text(column, place)
    else:
        raise DataError(
            f"a column of type {column.dtype} holds no times",
            where=place.whole(column),
            fix=f"convert it to numbers, text, dates or datetimes; {_WITHOUT_TIMES}",
        )
    if times.ms.null_count() == len(times.ms):
        raise DataError("the time column holds nothing", where=place.whole(column), fix=_WITHOUT_TIMES)
    _refuse_impossible(times.ms, place, now_ms)
    return times


def _refuse_impossible(ms: pl.Series, place: Place, now_ms: int) -> None:
    late = (ms > now_ms + DAY_MS).fill_null(value=False)
    if late.any():
        first = int(ms.filter(late)[0])
        moment = "after the year 9999" if first >= _YEAR_10000_MS else f"{iso_utc(first)[:16].replace('T', ' ')} UTC"
        raise DataError(
            f"{int(late.sum())} times lie in the future (the first is {moment})",
            where=place.locate(late),
            fix="correct or remove these rows; check the unit and the clock that wrote them",
        )
    early = (ms < _YEAR_1900_MS).fill_null(value=False)
    if early.any():
        raise DataError(
            f"{int(early.sum())} times lie before the year 1900",
            where=place.locate(early),
            fix="correct these rows, or leave their time empty",
        )


def _from_numbers(column: pl.Series, place: Place) -> Times:
    numbers = column.fill_nan(None) if column.dtype.is_float() else column.cast(pl.Int64)
    known = numbers.is_not_null()
    _refuse_digits(numbers, known, place)
    masks = {name: ((numbers >= low) & (numbers < high)).fill_null(value=False) for name, low, high in _UNITS}
    outside = known & ~_any(masks)
    if outside.any():
        raise DataError(
            f"{int(outside.sum())} times are not an epoch in seconds, milliseconds, microseconds or nanoseconds: "
            f"{quoted(_distinct(numbers, outside))}",
            where=place.locate(outside),
            fix=f"{_spreadsheet(numbers)}write epoch times (March 1973 or later) or ISO 8601 dates; "
            f"if such a number stands for no time, add --null {_distinct(numbers, outside)[0]}; {_WITHOUT_TIMES}",
        )
    units = {name: mask for name, mask in masks.items() if mask.any()}
    if len(units) > 1:
        counts = ", ".join(f"{int(mask.sum())} in {name}" for name, mask in units.items())
        rare = min(units.values(), key=lambda mask: int(mask.sum()))
        raise DataError(
            f"the time column mixes units: {counts}",
            where=f"the less frequent ones are in {place.locate(rare)}",
            fix="write the whole column in one unit",
        )
    unit = next(iter(units), "seconds")
    factor, divisor = _TO_MS[unit]
    if numbers.dtype.is_float():
        ms = (numbers * factor / divisor).round(0).cast(pl.Int64)
    else:
        ms = numbers.cast(pl.Int64) * factor // divisor
    return Times(ms, f"epoch {unit}")


def _refuse_digits(numbers: pl.Series, known: pl.Series, place: Place) -> None:
    """Raises `DataError` for dates such as 20240131 and 202401311200; the latter would be milliseconds of 1976."""
    low, high = (float(bound) if isinstance(bound, int | float) else 0.0 for bound in (numbers.min(), numbers.max()))
    for form, scale in _DIGITS.items():
        if not 1990 * scale <= low <= high < 2100 * scale:  # no log of a service is older
            continue
        digits = numbers.cast(pl.Int64, strict=False).cast(pl.String)
        if digits.str.to_datetime(form, strict=False).null_count() == digits.null_count():
            raise DataError(
                f"{int(known.sum())} times are dates without signs between: {quoted(_distinct(digits, known))}",
                where=place.locate(known),
                fix=f"say how they are written: --date-format {form}",
            )


def _spreadsheet(numbers: pl.Series) -> str:
    """Advice on days of a spreadsheet, which counts them from 1900."""
    days = numbers.is_between(*_SPREADSHEET_DAYS).fill_null(value=True).all()
    return (
        "if they count the days of a spreadsheet, format them as dates there and save it again; else " if days else ""
    )


def _distinct(column: pl.Series, wrong: pl.Series) -> pl.Series:
    return column.filter(wrong).unique(maintain_order=True)


def _any(masks: dict[str, pl.Series]) -> pl.Series:
    return pl.DataFrame(masks).select(pl.any_horizontal(pl.all()).alias("any"))["any"]


def _from_text(column: pl.Series, place: Place) -> Times:
    text = column.str.strip_chars()
    text = text.set(text.str.to_lowercase().is_in(["", "nan", "nat", "null", "none"]).fill_null(value=False), None)
    known = text.is_not_null()
    number, date = (text.str.contains(pattern).fill_null(value=False) for pattern in (_NUMBER, _DATE))
    wrong = known & ~number & ~date
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} times cannot be read: {quoted(_distinct(text, wrong))}",
            where=place.locate(wrong),
            fix=_how_written(text.filter(known)),
        )
    if number.any() and date.any():
        raise DataError(
            f"the time column mixes numbers ({int(number.sum())}) and dates ({int(date.sum())})",
            where=f"the less frequent ones are in {place.locate(min(number, date, key=lambda mask: int(mask.sum())))}",
            fix="write the whole column as numbers or as dates",
        )
    if not date.any():
        whole = not text.str.contains(r"[.eE]").any()
        numbers = text.cast(pl.Int64 if whole else pl.Float64, strict=False)
        # A number that does not fit into 64 bits is not a time either; as a float it is refused like any other.
        return _from_numbers(numbers if numbers.null_count() == text.null_count() else text.cast(pl.Float64), place)
    return _from_dates(text, place)


def _how_written(text: pl.Series) -> str:
    """Says which formats read all of these times, for the reader of a message."""
    formats = formats_of(text)
    if not formats:
        return (
            "write epoch seconds or milliseconds, or ISO 8601 (2026-01-31T12:00:00Z), or say how they are written: "
            "--date-format %d.%m.%Y"
        )
    flags = " or ".join(f"--date-format '{form}'" for form in formats)
    return f"say how they are written: {flags}" + ("; both read all of them" if len(formats) > 1 else "")


def _from_dates(text: pl.Series, place: Place) -> Times:
    parts = pl.DataFrame(
        {
            "day": text.str.extract(_DATE, 1),
            "minute": text.str.extract(_DATE, 2).fill_null("00:00"),
            "second": text.str.extract(_DATE, 3).str.replace(",", ".", literal=True).fill_null(":00"),
            "zone": text.str.extract(_DATE, 4)
            .str.replace("(?i)^(z|utc|gmt)$", "+0000")
            .str.replace(r"^(.\d\d)$", "${1}00"),
        }
    )
    known, aware = text.is_not_null(), parts["zone"].is_not_null()
    naive = known & ~aware
    if aware.any() and naive.any():
        raise DataError(
            f"the time column mixes dates with a zone ({int(aware.sum())}) and without ({int(naive.sum())})",
            where=f"the less frequent ones are in {place.locate(min(aware, naive, key=lambda mask: int(mask.sum())))}",
            fix="write every date with its zone (…Z or …+02:00)",
        )
    zone = pl.col("zone").str.replace(":", "").fill_null("+0000")
    moment = pl.concat_str("day", pl.lit("T"), "minute", "second", zone)
    ms = parts.select(
        moment.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="ms", strict=False).dt.timestamp("ms")
    ).to_series()
    wrong = known & ms.is_null()
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} dates do not exist: {quoted(_distinct(text, wrong))}",
            where=place.locate(wrong),
            fix=f"correct or remove these rows; if such a date is no time, add --null '{text.filter(wrong)[0]}'",
        )
    return Times(ms, "dates with a zone" if aware.any() else "dates without a zone, read as UTC")
