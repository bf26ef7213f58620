"""Small files as other programs write them: each gives the right data, or a message that says how to mend the file."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset

NOW = 1_800_000_000_000
T = 1_700_000_000
LOG = f"user_id,item_id,timestamp\nu1,i1,{T}\nu1,i2,{T + 1}\nu2,i3,{T + 2}\n"
PAIRS = [("u1", "i1"), ("u1", "i2"), ("u2", "i3")]
FORMATS = {".parquet": Format.PARQUET, ".inter": Format.RECBOLE, ".jsonl": Format.JSONL}


def _parquet(**columns: Any) -> Callable[[Path], None]:
    base = {"user_id": ["u1", "u1", "u2"], "item_id": ["i1", "i2", "i3"], "timestamp": [T, T + 1, T + 2]}
    return lambda path: pl.DataFrame({**base, **columns}).write_parquet(path)


def _side(**columns: Any) -> Callable[[Path], None]:
    return lambda path: pl.DataFrame(columns).write_parquet(path)


def _import(path: Path, content: str | Callable[[Path], None]) -> Dataset:
    """Imports a log; a file called items or users goes beside a small log."""
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        content(path)
    if path.stem not in ("items", "users"):
        return import_dataset(ImportRequest(str(path), FORMATS.get(path.suffix, Format.CSV)), now_ms=NOW)
    log = path.with_name("log.csv")
    log.write_text(LOG)
    side = {path.stem: path}
    return import_dataset(ImportRequest(str(log), Format.CSV, **side), now_ms=NOW)  # type: ignore[arg-type]


def _pairs(data: Dataset) -> list[tuple[str, str]]:
    return data.events.select("user_id", "item_id").rows()


READ: dict[str, tuple[str, Any, Callable[[Dataset], Any], Any]] = {
    "decimal commas and semicolons of a spreadsheet": (
        "log.csv",
        '\ufeff"user_id";"item_id";"timestamp";"value"\r\n"u1";"i1";"2024-01-31 12:00:00";"4,5"\r\n'
        '"u1";"i2";"2024-01-31 12:00:01";"1.234,50"\r\n',
        lambda data: data.events["value"].to_list(),
        [4.5, 1234.5],
    ),
    "short zones of PostgreSQL": (
        "log.csv",
        "user_id,item_id,timestamp\nu1,i1,2023-11-14 22:13:20.123456+00\nu1,i2,2023-11-15 00:13:21+02\n",
        lambda data: data.events["timestamp"].to_list(),
        [T * 1000 + 123, T * 1000 + 1000],
    ),
    "null of Hive": (
        "log.tsv",
        f"user_id\titem_id\ttimestamp\n\\N\ti1\t{T}\nu1\ti1\t{T}\n",
        _pairs,
        [("u1", "i1")],
    ),
    "ids that pandas made floats": (
        "log.csv",
        f"user_id,item_id,timestamp\n1.0,10.0,{T}\n1.0,20.0,{T + 1}\n,30.0,{T + 2}\n",
        _pairs,
        [("1", "10"), ("1", "20")],
    ),
    "counters of RecBole": (
        "log.inter",
        "user_id:token\titem_id:token\ttimestamp:float\n1\ta\t2\n1\tb\t1\n2\tc\t3\n4\ta\t4\n",
        lambda data: (_pairs(data), data.has_time),
        ([("1", "b"), ("1", "a"), ("2", "c"), ("4", "a")], False),
    ),
    "quotes behind backslashes": (
        "items.csv",
        '"ISBN";"Book-Title"\n"i1";"A \\"Novel\\""\n"i2";"Rites; of & Passage"\n',
        lambda data: data.items["title"].to_list()[:2],
        ['A "Novel"', "Rites; of & Passage"],
    ),
    "columns of nothing": (
        "log.parquet",
        _parquet(session_id=[None] * 3, value=[None] * 3),
        lambda data: (_pairs(data), data.events["value"].null_count()),
        (PAIRS, 3),
    ),
    "decimal times": (
        "log.parquet",
        _parquet(timestamp=pl.Series([Decimal(T * 1000)] * 3, dtype=pl.Decimal(20, 0))),
        lambda data: data.events["timestamp"].to_list(),
        [T * 1000] * 3,
    ),
    "32-bit times": (
        "log.parquet",
        _parquet(timestamp=pl.Series([T] * 3, dtype=pl.Int32)),
        lambda data: data.events["timestamp"].to_list(),
        [T * 1000] * 3,
    ),
    "decimal ids": (
        "log.parquet",
        _parquet(item_id=pl.Series([Decimal(n) for n in (1, 2, 3)], dtype=pl.Decimal(38, 0))),
        _pairs,
        [("u1", "1"), ("u1", "2"), ("u2", "3")],
    ),
    "text as bytes": ("log.parquet", _parquet(user_id=[b"u1", b"u1", b"u2"]), _pairs, PAIRS),
    "features of many types": (
        "users.parquet",
        _side(
            user_id=["u1", "u2"],
            age=[33.0, float("nan")],
            vip=[True, False],
            born=[date(2000, 1, 1), None],
            plan=pl.Series(["a", "b"], dtype=pl.Categorical),
            m=pl.Series([Decimal("1.5"), None], dtype=pl.Decimal(5, 1)),
            blob=[b"\xff\xfe", b"x"],
        ),
        lambda data: data.users.rows(),
        [("u1", "33", "true", "2000-01-01", "a", "1.5"), ("u2", None, "false", None, "b", None)],
    ),
}


@pytest.mark.parametrize("case", READ)
def test_a_file_of_another_program_is_read_for_what_it_means(tmp_path: Path, case: str) -> None:
    name, content, seen, expected = READ[case]
    assert seen(_import(tmp_path / name, content)) == expected


# polars writes no such file: one row of decimal256(60, 2), by pyarrow.
DECIMAL256 = (
    "eNoVTrsKwkAQXJdwBJFg4R4uXJEmh0ISTNBUNpZ2wdrmCAEtNPHi6xv8ajfFDsu8mPpwKghoRvOUUB5FygCAWqAgAgWc7mCphubS3hwJEdGWcDlxyZQC+qbnEcWqkQ0b"
    "C4YiThSwOAg16lJXNjwaaQZJ79eK7dgMIqANdQWruHf+8WqfWdP3mfO++8Tv1g/X7h6XVb7JCzbjop9cLWP/jQIauA=="
)

REFUSED: dict[str, tuple[str, Any, str, str, str]] = {
    "two unnamed indices": ("log.csv", ",,user_id,item_id\n0,0,u,a\n", "without a name", "line 1", "index=False"),
    "a bad time behind quoted line ends": (
        "log.csv",
        f'user_id,item_id,timestamp,note\nu1,i1,{T},"hello\nworld"\nu1,i2,{T},"x"\nu2,i1,notatime,"y"\n',
        "1 times cannot be read: 'notatime'",
        "line 5, column timestamp",
        "--date-format",
    ),
    "times in 32-bit floats": (
        "log.parquet",
        _parquet(timestamp=pl.Series([T] * 3, dtype=pl.Float32)),
        "have lost digits",
        "column timestamp",
        "--map time=",
    ),
    "decimals of 60 digits": (
        "log.parquet",
        lambda path: path.write_bytes(zlib.decompress(base64.b64decode(DECIMAL256))),
        "has a column that cannot be read",
        "log.parquet",
        "as text, numbers",
    ),
    "ids in 32-bit floats": (
        "log.parquet",
        _parquet(user_id=pl.Series([2**24, 2**24 + 1, 2**25], dtype=pl.Float32)),
        "3 user ids were stored as floats and lost digits",
        "rows 1, 2, 3, column user_id",
        "as text",
    ),
    "values that are lists": (
        "log.parquet", _parquet(value=[[1.0]] * 3), "values of type List", "column value", "--map value=",
    ),
    "values that are bytes": (
        "log.parquet", _parquet(value=[b"\xff"] * 3), "values of type Binary", "column value", "--map value=",
    ),
    "types that are bytes": (
        "log.parquet", _parquet(event_type=[b"\xff"] * 3), "event types of type Binary", "column event_type",
        "--map type=",
    ),
    "categories that are bytes": (
        "items.parquet", _side(item_id=["i1"], category=[b"\xff"]), "values of type Binary", "column category",
        "--items-map category=",
    ),
    "categories that are lists of bytes": (
        "items.parquet", _side(item_id=["i1"], category=[[b"\xff"]]), "values inside of lists", "column category",
        "--items-map category=",
    ),
    "dates before there were logs": (
        "log.parquet", _parquet(timestamp=[datetime(1, 1, 1)] * 3),  # noqa: DTZ001
        "3 times lie before the year 1900", "rows 1, 2, 3, column timestamp", "leave their time empty",
    ),
    "users of another shop": (
        "users.csv", "user_id,plan\nX1,pro\n", "no user of the log is in the user table", "users.csv", "--map user=",
    ),
    "prices on request": (
        "items.csv", "item_id,price\ni1,on request\n", "column 'price' would lose 1 of its 1 values", "line 2, column",
        "--allow-loss price",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_would_lose_something_is_refused_with_place_and_flag(tmp_path: Path, case: str) -> None:
    name, content, what, where, fix = REFUSED[case]
    with pytest.raises(DataError) as caught:
        _import(tmp_path / name, content)
    assert what in caught.value.what
    assert name in (caught.value.where or "")
    assert where in (caught.value.where or "")
    assert fix in (caught.value.fix or "")


def test_a_robot_with_most_of_the_log_is_named(tmp_path: Path) -> None:
    rows = [f"bot,i{k * 7 % 50},{T + k}" for k in range(2000)]
    rows += [f"u{u},i{(u * 7 + k * 3) % 50},{T + u * 10 + k}" for u in range(30) for k in range(6)]
    data = _import(tmp_path / "log.csv", "\n".join(["user_id,item_id,timestamp", *rows, ""]))
    assert any("user 'bot' has 92% of the events (2000)" in note for note in data.report["notes"])
