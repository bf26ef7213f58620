"""A column of any type in any role is read or refused with a message; types are read for what they hold."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import series

from model.data.columns import ITEM_ROLES, LOG_COLUMNS
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset

NOW = 1_800_000_000_000
T = 1_700_000_000
ROWS = 3
COLUMNS = {"user_id": ["u", "u", "v"], "item_id": ["a", "b", "a"], "timestamp": [T, T + 1, T + 2]}
TYPES = [
    pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64,
    pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Time, pl.Datetime, pl.Duration, pl.Decimal, pl.Categorical, pl.Enum,
    pl.Null, pl.List, pl.Array, pl.Struct,
]  # fmt: skip
ROLES = [*(f"log {name}" for name in LOG_COLUMNS.values()), "items item_id", *(f"items {role}" for role in ITEM_ROLES)]
ROLES += ["users user_id", "users plan"]


def _import(folder: Path, role: str, values: pl.Series) -> Dataset:
    """Imports a log, and a table of items or users, with `values` as one of the columns."""
    table, column = role.split()
    tables: dict[str, dict[str, Any]] = {
        "log": dict(COLUMNS),
        "items": {"item_id": ["a", "b", "c"]},
        "users": {"user_id": ["u", "v", "w"]},
    }
    paths: dict[str, Path] = {}
    for name, columns in tables.items():
        frame = pl.DataFrame(columns)
        paths[name] = folder / f"{name}.parquet"
        (frame.with_columns(values.alias(column)) if name == table else frame).write_parquet(paths[name])
    request = ImportRequest(str(paths["log"]), Format.PARQUET, items=paths["items"], users=paths["users"])
    return import_dataset(request, now_ms=NOW)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from(ROLES), series(allowed_dtypes=TYPES, min_size=ROWS, max_size=ROWS, allow_null=True))
def test_any_type_in_any_role_gives_data_or_a_message(role: str, values: pl.Series) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            data = _import(Path(folder), role, values)
        except DataError as error:
            assert error.where
            assert error.fix
            return
        data.save(Path(folder) / "data")
        assert Dataset.load(Path(folder) / "data").fingerprint == data.fingerprint


def _events(folder: Path, column: str, values: pl.Series) -> dict[str, Any]:
    data = _import(folder, f"log {column}", values)
    return {"values": data.events[column].to_list(), "notes": " ".join(data.report["notes"]), "data": data}


@pytest.mark.parametrize(
    "ids",
    [
        pl.Series([b"1", b"1", b"2"]),
        pl.Series([Decimal(1), Decimal(1), Decimal(2)], dtype=pl.Decimal(38, 3)),
        pl.Series(["1", "1", "2"], dtype=pl.Categorical),
        pl.Series([1, 1, 2], dtype=pl.UInt8),
        pl.Series([1, 1, 2], dtype=pl.Int128),
        pl.Series([1, 1, 2], dtype=pl.Float32),
        pl.Series(["1.0", "1.0", "2.0"]),
    ],
    ids=lambda values: str(values.dtype),
)
def test_ids_are_read_for_what_they_hold(tmp_path: Path, ids: pl.Series) -> None:
    pl.DataFrame({**COLUMNS, "user_id": ids}).write_parquet(tmp_path / "log.parquet")
    data = import_dataset(ImportRequest(str(tmp_path / "log.parquet"), Format.PARQUET), now_ms=NOW)
    assert data.events["user_id"].to_list() == ["1", "1", "2"]


@pytest.mark.parametrize(
    "ids",
    [
        pl.Series([2.0**24, 2.0**24, 2.0**25], dtype=pl.Float32),
        pl.Series([2.0**53, 2.0**53, 2.0**54]),
        pl.Series(["1.7E+17", "1.7E+17", "3"]),
        pl.Series(["9007199254740993.0", "1.0", "2.0"]),
    ],
    ids=lambda values: str(values.dtype),
)
def test_ids_of_which_two_may_have_become_one_are_refused(tmp_path: Path, ids: pl.Series) -> None:
    with pytest.raises(DataError, match="lost digits") as caught:
        _import(tmp_path, "log user_id", ids)
    assert "log.parquet, row" in (caught.value.where or "")
    assert "column user_id" in (caught.value.where or "")


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([T] * ROWS, dtype=pl.Int32),
        pl.Series([T] * ROWS, dtype=pl.UInt32),
        pl.Series([Decimal(T * 1000)] * ROWS, dtype=pl.Decimal(20, 0)),
        pl.Series([datetime.fromtimestamp(T, UTC)] * ROWS, dtype=pl.Datetime("ns", "Europe/Berlin")),
        pl.Series([str(T).encode()] * ROWS),
        pl.Series(["2023-11-14 22:13:20+00"] * ROWS),
        pl.Series(["2023-11-14 22:13:20 UTC"] * ROWS),
        pl.Series(["2023-11-14 22:13:20,000Z"] * ROWS),
    ],
    ids=lambda values: str(values.dtype),
)
def test_times_of_every_type_are_read(tmp_path: Path, times: pl.Series) -> None:
    assert _events(tmp_path, "timestamp", times)["values"] == [T * 1000] * ROWS


@pytest.mark.parametrize(
    ("times", "what"),
    [
        (pl.Series([T] * ROWS, dtype=pl.Float32), "times of type Float32 have lost digits"),
        (pl.Series([timedelta(1)] * ROWS), "holds no times"),
        (pl.Series([time(1)] * ROWS), "holds no times"),
        (pl.Series([datetime(1500, 1, 1)] * ROWS), "before the year 1900"),  # noqa: DTZ001
        (pl.Series([2**50] * ROWS, dtype=pl.Datetime("ms")), "the first is after the year 9999"),
        (pl.Series([2017_03_01_12_00] * ROWS), "dates without signs between: '201703011200'"),
        (pl.Series(["20170301"] * ROWS), "dates without signs between: '20170301'"),
    ],
)
def test_times_that_say_something_else_are_refused(tmp_path: Path, times: pl.Series, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        _import(tmp_path, "log timestamp", times)
    assert "column timestamp" in (caught.value.where or "")
    assert caught.value.fix


@pytest.mark.parametrize(
    ("role", "values", "what"),
    [
        ("log user_id", pl.Series([date(2024, 1, 1)] * ROWS), "user ids of type Date"),
        ("log value", pl.Series([[1.0]] * ROWS), "values of type List"),
        ("log value", pl.Series([b"\xff"] * ROWS), "bytes that are not UTF-8 text"),
        ("log event_type", pl.Series([b"\xff"] * ROWS), "event types of type Binary"),
        ("log event_type", pl.Series([{"name": "view"}] * ROWS), "event types of type Struct"),
        ("items category", pl.Series([b"\xff"] * ROWS), "values of type Binary"),
        ("items category", pl.Series([[b"\xff"]] * ROWS), "values inside of lists of type Binary"),
        ("items title", pl.Series([timedelta(1)] * ROWS), "values of type Duration"),
    ],
)
def test_a_type_that_its_role_cannot_read_is_named_with_its_column(
    tmp_path: Path, role: str, values: pl.Series, what: str
) -> None:
    with pytest.raises(DataError, match=what) as caught:
        _import(tmp_path, role, values)
    table, column = role.split()
    assert f"{table}.parquet, column {column}" in (caught.value.where or "")


def test_numbers_keep_the_digits_that_were_meant(tmp_path: Path) -> None:
    assert _events(tmp_path, "value", pl.Series([36.19, 1, None], dtype=pl.Float32))["values"] == [36.19, 1.0, None]
    decimals = pl.Series([Decimal("1.50"), None, Decimal(2)], dtype=pl.Decimal(10, 2))
    assert _events(tmp_path, "value", decimals)["values"] == [1.5, None, 2.0]


def test_columns_that_hold_nothing_are_as_if_they_were_absent(tmp_path: Path) -> None:
    nothing = pl.Series([None] * ROWS)
    for column in ("value", "session_id", "event_type", "timestamp"):
        read = _events(tmp_path, column, nothing)
        assert f"columns that hold nothing count as absent: {column}" in read["notes"]
    assert not read["data"].has_time


def test_features_are_text_of_any_type_and_say_what_is_left_out(tmp_path: Path) -> None:
    for values, expected in (
        (pl.Series([33.0, float("nan"), 1.0]), ["33", None]),
        (pl.Series([True, False, None]), ["true", "false"]),
        (pl.Series([date(2000, 1, 1), None, None]), ["2000-01-01", None]),
    ):
        assert _import(tmp_path, "users plan", values).users["plan"].to_list() == expected
    far = pl.Series([2**30, None, 0], dtype=pl.Int32).cast(pl.Date)  # no calendar has such a day
    assert _import(tmp_path, "users plan", far).users["plan"].to_list() == ["1073741824", None]
    data = _import(tmp_path, "users plan", pl.Series([b"\xff", b"x", None]))
    assert data.users.columns == ["user_id"]
    assert any("'plan' of type Binary cannot be a feature" in note for note in data.report["notes"])
