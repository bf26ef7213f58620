"""Files as people have them: how text is written, compression, several files, names of columns."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import zstandard
from typer.testing import CliRunner

from model.cli.data import app
from model.data.columns import parse_type_map
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest, TextOptions
from model.data.importing import import_dataset
from model.data.rules import Rules

NOW = 1_800_000_000_000
T = 1_700_000_000
LOG = f"user_id,item_id,timestamp\nu,a,{T}\nu,b,{T + 1}\n"


def _write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _import(source: Path | str, form: Format = Format.CSV, **options: Any) -> Dataset:
    return import_dataset(ImportRequest(str(source), form, **options), now_ms=NOW)


def _refusal(source: Path | str, form: Format = Format.CSV, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        _import(source, form, **options)
    assert caught.value.fix
    return caught.value


def _pairs(data: Dataset) -> list[tuple[str, str]]:
    return data.events.select("user_id", "item_id").rows()


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (f"user_id::item_id::timestamp\nu::a::{T}\nu::b: c::{T}\n", TextOptions()),
        (f"u::a::{T}\nu::b: c::{T}\n", TextOptions(separator="::", header=False)),
        (f"u;a;{T}\nu;b: c;{T}\n", TextOptions(header=False)),
        (f"user_id,item_id,timestamp\n'u',a,{T}\nu,'b: c',{T}\n", TextOptions(quote="'")),
        (
            f'"user_id";"item_id";"timestamp"\nu;a;{T}\nu;b: c;{T}\n',
            TextOptions(separator=";", quote=""),
        ),
        (f'user_id\titem_id\ttimestamp\tnote\nu\ta\t{T}\t12" disc "x\nu\tb: c\t{T}\t"\n', TextOptions()),
        (f'user_id,item_id,timestamp,note\nu,a,{T},"a \\"b\\", c"\nu,b: c,{T},"d\\\\"\n', TextOptions()),
    ],
)
def test_text_is_read_as_it_is_written(tmp_path: Path, text: str, options: TextOptions) -> None:
    _write(tmp_path, {"log.csv": text})
    columns = {} if options.header else {"user": "1", "item": "2", "time": "3"}
    columns |= {"user": '"user_id"', "item": '"item_id"', "time": '"timestamp"'} if options.quote == "" else {}
    assert _pairs(_import(tmp_path / "log.csv", text=options, columns=columns)) == [("u", "a"), ("u", "b: c")]


def test_escaped_quotes_and_windows_folders_in_quotes_are_kept_as_they_are(tmp_path: Path) -> None:
    items = 'item_id,title\na,"Say \\"hi\\", twice"\nb,"C:\\dir\\"\nc,"plain ""quotes"""\n'
    _write(tmp_path, {"log.csv": LOG, "items.csv": items, "folders.csv": 'item_id,title\na,"C:\\dir\\"\n'})
    titles = _import(tmp_path / "log.csv", items=tmp_path / "items.csv").items["title"].to_list()
    assert titles == ['Say "hi", twice', "C:\\dir\\", 'plain "quotes"']
    assert _import(tmp_path / "log.csv", items=tmp_path / "folders.csv").items["title"][0] == "C:\\dir\\"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'user_id,item_id,timestamp,note\nu,a,{T},"one\ntwo\n"\nu,a,{T},x\nu,b,soon,y\n', 6),
        (f'user_id,item_id,timestamp,note\nu,a,{T},"one\ntwo"\nu,b,soon,y', 4),
        (f'"user\n_id",item_id,timestamp\nu,a,{T}\nu,b,soon\n', 4),
        (f"sep=;\r\nuser_id;item_id;timestamp\r\nu;a;{T}\r\nu;b;soon\r\n", 4),
        (f"sep=;\nuser_id;item_id;timestamp\nu;a;{T}\nu;b;{T};more\n", 4),
        (f'sep=;\nuser_id;item_id;timestamp;note\nu;a;{T};"x\ny"\nu;b;soon;z\n', 5),
    ],
)
def test_a_line_is_named_rightly_behind_fields_with_line_ends(tmp_path: Path, text: str, line: int) -> None:
    _write(tmp_path, {"log.csv": text})
    columns = {"user": "user\n_id"} if "user\n_id" in text else {}
    assert f"log.csv, line {line}" in (_refusal(tmp_path / "log.csv", columns=columns).where or "")


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", zstandard.compress),
        (".zst", lambda content: zstandard.compress(content[:30]) + zstandard.compress(content[30:])),
    ],
)
def test_compression_is_taken_off_by_name_and_checked(tmp_path: Path, ending: str, pack: Any) -> None:
    packed = pack(LOG.encode())
    _write(tmp_path, {f"log.csv{ending}": packed, f"cut.csv{ending}": packed[:-6], f"plain.csv{ending}": LOG})
    _write(tmp_path, {"hidden.csv": packed, f"none.csv{ending}": pack(b"")})
    assert len(_pairs(_import(tmp_path / f"log.csv{ending}"))) == 2
    assert "damaged" in _refusal(tmp_path / f"cut.csv{ending}").what
    assert f"take the {ending} off" in (_refusal(tmp_path / f"plain.csv{ending}").fix or "")
    assert f"hidden.csv{ending}" in (_refusal(tmp_path / "hidden.csv").fix or "")
    assert "holds nothing" in _refusal(tmp_path / f"none.csv{ending}").what


def test_several_files_patterns_and_partitions_are_one_log(tmp_path: Path) -> None:
    later = f"user_id,item_id,timestamp,value\nv,a,{T},2\nv,b,soon,3\n"
    good = later.replace("soon", str(T))
    _write(tmp_path, {"a.csv": LOG, "b.csv": good, "day/event=cart/x.csv.gz": gzip.compress(LOG.encode())})
    _write(tmp_path, {"day/event=view/_SUCCESS": "", "day/event=view/y.csv": LOG, "none/x.bin": "1"})
    both = _import(tmp_path / "a.csv", more=(str(tmp_path / "b.csv"),))
    assert _pairs(both) == [("u", "a"), ("u", "b"), ("v", "a"), ("v", "b")]
    assert both.events["value"].to_list() == [None, None, 2.0, 3.0]
    assert any("1 of 2 files lack the column value" in note for note in both.report["notes"])
    assert _import(tmp_path / "[ab].csv").fingerprint == both.fingerprint
    folder = _import(tmp_path / "day")
    assert folder.name == "day"
    assert folder.report["event_types"] == {"cart": 2, "view": 2}
    _write(tmp_path, {"hive/date=2023-11-14/p.csv": LOG.replace("timestamp", "ts")})
    assert _import(tmp_path / "hive").events["timestamp"].to_list() == [T * 1000, (T + 1) * 1000]
    _write(tmp_path, {"b.csv": later, "c.csv": "1,2,3\n1,2,3\n"})
    assert f"{tmp_path / 'b.csv'}, line 3" in (_refusal(tmp_path / "[ab].csv").where or "")
    assert "no column in common" in _refusal(tmp_path / "[ac].csv").what
    assert "no file matches" in _refusal(tmp_path / "*.tsv").what
    assert "it holds x.bin" in _refusal(tmp_path / "none").what
    assert "more than once" in _refusal(tmp_path / "a.csv", more=(str(tmp_path / "a.csv"),)).what


def test_json_lines_and_arrays_are_logs_and_items(tmp_path: Path) -> None:
    lines = '{"user_id": 7, "item_id": "a"}\n\n{"user_id": 7, "item_id": "b", "extra": {"x": 1}}\n'
    array = '[{"id": "a", "title": "A"},\n {"id": "b", "title": "B"}]'
    _write(tmp_path, {"log.jsonl": lines, "items.json": array, "log.json": f"[{','.join(lines.split(chr(10))[::2])}]"})
    data = _import(tmp_path / "log.jsonl", Format.JSONL, items=tmp_path / "items.json")
    assert _pairs(data) == [("7", "a"), ("7", "b")]
    assert data.items["title"].to_list() == ["A", "B"]
    for content, what, where in [
        ('{"user_id": 1}\n{"user_id": }\n', "not valid JSON", "line 2, column 13"),
        ("[{}, 3]", "not a JSON object", "entry 2"),
        ('[{"a": 1},\n {"b"}]', "not valid JSON", "line 2"),
        ("[]", "no object with a field", "log.json"),
        ('[{"a": 1}]\n[{"a": 2}]\n', "not a JSON object", "line 1"),
    ]:
        _write(tmp_path, {"log.json": content})
        error = _refusal(tmp_path / "log.json", Format.JSONL)
        assert what in error.what
        assert where in (error.where or "")


def test_columns_are_found_by_names_that_mean_the_same_unless_several_do(tmp_path: Path) -> None:
    _write(tmp_path, {"log.csv": f"visitorId,Product ID,created_at,Rating\nu,a,{T},4\n"})
    data = _import(tmp_path / "log.csv")
    assert data.events.rows() == [("u", "a", T * 1000, "rating", 4.0, None)]
    assert any("visitorId as user, Product ID as item" in note for note in data.report["notes"])
    _write(tmp_path, {"log.csv": f"user_id,item_id,date,ts\nu,a,2023-11-14,{T}\n"})
    error = _refusal(tmp_path / "log.csv")
    assert error.what == "several columns may be the time: ts, date"
    assert _import(tmp_path / "log.csv", columns={"time": "ts"}).has_time
    assert not _import(tmp_path / "log.csv", columns={"time": ""}).has_time


def test_flags_say_what_types_nulls_decimals_and_dates_mean(tmp_path: Path) -> None:
    rows = "u;a;31.12.2023 23:59;SEEN;1.234\n-;a;31.12.2023 23:59;sold;1\nu;b;-;sold;2,5 EUR\n"
    _write(tmp_path, {"log.csv": f"user_id;item_id;timestamp;event_type;value\n{rows}"})
    types = parse_type_map("seen=view,sold=purchase,kept=click")
    options: dict[str, Any] = {"rules": Rules(decimal=",", types=types, null_words=frozenset("-"))}
    data = _import(tmp_path / "log.csv", date_format="%d.%m.%Y %H:%M", **options)
    assert data.events.select("event_type", "value").rows() == [("view", 1234.0)]
    assert data.report["first_event"] == "2023-12-31T23:59:00Z"
    assert data.report["dropped"] == {"no user id": 1, "no time": 1}
    assert any("does not have: kept" in note for note in data.report["notes"])
    error = _refusal(tmp_path / "log.csv", date_format="%Y-%m-%d", **options)
    assert "not written as '%Y-%m-%d': '31.12.2023 23:59'" in error.what
    assert "lines 2, 3" in (error.where or "")


def test_the_standard_input_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (LOG.encode(), zstandard.compress(LOG.encode())):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        assert _import("-").name == "stdin"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--type-map", "pv"],
        ["--type-map", "pv=seen"],
        ["--items-map", "user=x", "--items", "i.csv"],
        ["--items-map", "item=x"],
        ["--items-format", "merchant-feed"],
        ["--separator", ""],
        ["--quote", "ab"],
        ["--decimal", ";"],
        ["--format", "parquet", "--no-header"],
        ["--format", "gorse", "--map", "user=x"],
        ["--format", "recbole", "more"],
        ["--format", "recbole", "--date-format", "%Y"],
    ],
)
def test_flags_that_do_not_fit_are_bad_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["import", "x", "--format", "csv", "--out", "d", *arguments])
    assert result.exit_code == 2, result.output


def test_a_separator_of_the_shell_is_understood(tmp_path: Path) -> None:
    _write(tmp_path, {"log.txt": f"u\ta\t{T}\n"})
    out = str(tmp_path / "d")
    words = ["import", str(tmp_path / "log.txt"), "--format", "csv", "--separator", "tab", "--no-header", "--out", out]
    assert CliRunner().invoke(app, [*words, "--map", "user=1,item=2,time=3"]).exit_code == 0
    assert Dataset.load(out).events["timestamp"].to_list() == [T * 1000]
    assert pl.read_parquet(f"{out}/items.parquet")["item_id"].to_list() == ["a"]
