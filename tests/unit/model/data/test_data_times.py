from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.errors import DataError
from model.data.times import DAY_MS, Place, Times, parse_times

NOW = 1_800_000_000_000
moments = st.datetimes(datetime(1974, 1, 1), datetime(2026, 1, 1))  # noqa: DTZ001


def _parse(values: pl.Series | list[object], now_ms: int = NOW) -> Times:
    column = values if isinstance(values, pl.Series) else pl.Series("t", values)
    return parse_times(column, Place("log.csv", pl.int_range(2, 2 + len(column), eager=True)), now_ms)


@pytest.mark.parametrize(
    ("unit", "per_second"),
    [("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)],
)
@settings(deadline=None)
# Milliseconds of 1976 read like dates without signs, which are refused.
@given(second=st.lists(st.integers(22 * 10**7, NOW // 1000), min_size=1, max_size=5))
def test_the_unit_of_whole_numbers_is_told_by_their_size(unit: str, per_second: int, second: list[int]) -> None:
    for column in (
        pl.Series("t", [s * per_second for s in second], pl.Int64),
        pl.Series("t", [str(s * per_second) for s in second]),
    ):
        read = _parse(column)
        assert read.ms.to_list() == [s * 1000 for s in second]
        assert read.read_as == f"epoch {unit}"


def test_fractions_of_a_second_are_kept_to_the_millisecond() -> None:
    assert _parse([1_700_000_000.1234, 1_700_000_001.0]).ms.to_list() == [
        1_700_000_000_123,
        1_700_000_001_000,
    ]
    assert _parse(["1700000000.5", "1.7e9"]).ms.to_list() == [1_700_000_000_500, 1_700_000_000_000]


@settings(deadline=None)
@given(st.lists(moments, min_size=1, max_size=4), st.integers(-12, 14))
def test_dates_with_a_zone_are_moved_to_utc(naive: list[datetime], hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    aware = [moment.replace(microsecond=0, tzinfo=zone) for moment in naive]
    read = _parse([moment.isoformat() for moment in aware])
    assert read.ms.to_list() == [round(moment.timestamp() * 1000) for moment in aware]
    assert read.read_as == "dates with a zone"


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-29",
        "2024-02-29 00:00",
        "2024-02-29T00:00:00",
        "2024-02-29 00:00:00.000",
        "2024-02-29T00:00:00Z",
        "2024-02-29 00:00:00z",
        "2024-02-29T01:30:00+0130",
        " 2024-02-29T00:00:00.000000Z ",
    ],
)
def test_the_usual_ways_to_write_a_date_mean_the_same(text: str) -> None:
    expected = int(datetime(2024, 2, 29, tzinfo=UTC).timestamp() * 1000)
    assert _parse([text]).ms.to_list() == [expected]


def test_dates_without_a_zone_are_read_as_utc_and_say_so() -> None:
    assert _parse(["2024-02-29 12:00"]).read_as == "dates without a zone, read as UTC"
    assert _parse(pl.Series("t", [datetime(2024, 2, 29)])).read_as == "dates without a zone, read as UTC"  # noqa: DTZ001


def test_typed_columns_keep_their_zone() -> None:
    aware = pl.Series("t", [datetime(2024, 2, 29, 12, tzinfo=UTC)]).dt.convert_time_zone("Europe/Berlin")
    expected = int(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp() * 1000)
    assert _parse(aware).ms.to_list() == [expected]
    assert _parse(pl.Series("t", [date(2024, 2, 29)])).ms.to_list() == [expected - DAY_MS // 2]


def test_missing_times_stay_missing() -> None:
    nan = pl.Series("t", [1_700_000_000.0, float("nan"), None])
    assert _parse(nan).ms.to_list() == [1_700_000_000_000, None, None]
    text = _parse(["1700000000", "", "NaN", None, "null"])
    assert text.ms.to_list() == [1_700_000_000_000, None, None, None, None]


@pytest.mark.parametrize(
    ("values", "what", "where"),
    [
        ([1_700_000_000, 1_700_000_000_000], "mixes units: 1 in seconds, 1 in milliseconds", "line 2"),
        ([1_700_000_000] * 4 + [1_700_000_000_000], "4 in seconds, 1 in milliseconds", "line 6"),
        ([1_700_000_000.5, 1_700_000_000_000.0], "mixes units", "line 2"),
        (["1700000000", "2024-01-01"], "mixes numbers (1) and dates (1)", "line 2"),
        (["2024-01-01", "2024-01-01T00:00:00Z", "2024-01-02"], "with a zone (1) and without (2)", "line 3"),
        (
            ["2024-01-01", "yesterday", "01/02/2024"],
            "2 times cannot be read: 'yesterday', '01/02/2024'",
            "lines 3, 4",
        ),
        (["2024-01-01", "2023-02-29"], "1 dates do not exist: '2023-02-29'", "line 3"),
        (["2024-01-01T25:00:00"], "do not exist", "line 2"),
        pytest.param(
            [0, 1, 2], "3 times are not an epoch", "lines 2, 3, 4",
            id="values8-3 times are no epoch-lines 2, 3, 4",
        ),
        pytest.param(
            [1_700_000_000, -5], "1 times are not an epoch", "line 3",
            id="values9-1 times are no epoch-line 3",
        ),
        pytest.param(
            [float("inf"), 1.7e9], "1 times are not an epoch", "line 2",
            id="values10-1 times are no epoch-line 2",
        ),
        pytest.param(
            ["9" * 30], "1 times are not an epoch", "line 2",
            id="values11-1 times are no epoch-line 2",
        ),
        ([1_700_000_000, 1_900_000_000], "1 times lie in the future (the first is 2030-03-17", "line 3"),
        (["2099-01-01T00:00:00Z"], "lie in the future", "line 2"),
    ],
)  # fmt: skip
def test_times_that_would_be_a_guess_are_refused(values: list[object], what: str, where: str) -> None:
    with pytest.raises(DataError) as caught:
        _parse(values)
    assert what in caught.value.what
    assert where in (caught.value.where or "")
    assert caught.value.fix


def test_a_clock_that_is_a_few_hours_ahead_is_no_error() -> None:
    assert _parse([NOW + DAY_MS]).ms.to_list() == [NOW + DAY_MS]


@pytest.mark.parametrize(
    "column", [pl.Series("t", [None], pl.Int64), pl.Series("t", ["", ""]), pl.Series("t", [float("nan")])]
)
def test_a_time_column_that_holds_nothing_is_refused(column: pl.Series) -> None:
    with pytest.raises(DataError, match="holds nothing"):
        _parse(column)


def test_a_column_of_another_type_is_refused() -> None:
    with pytest.raises(DataError, match="holds no times"):
        _parse(pl.Series("t", [[1]]))
    with pytest.raises(DataError, match="holds no times"):
        _parse(pl.Series("t", [True]))
