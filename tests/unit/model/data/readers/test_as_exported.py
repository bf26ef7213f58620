"""Files as programs export them: parts without rows, tables with blanks between, dates of spreadsheets, lost flags."""

from __future__ import annotations

import shlex
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from model.cli.data import app
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.data.guess import completed, guess_format
from model.data.importing import import_dataset

NOW = 1_800_000_000_000
T = 1_700_000_000
LOG = f"user_id,item_id,timestamp\nu,a,{T}\nu,b,{T + 1}\n"


def _import(path: Path, form: Format = Format.CSV, date_format: str | None = None) -> Dataset:
    return import_dataset(ImportRequest(str(path), form, date_format=date_format), now_ms=NOW)


def _refusal(path: Path, content: str | bytes, form: Format = Format.CSV) -> DataError:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        _import(path, form)
    return caught.value


@pytest.mark.parametrize("nothing", ["", "user_id,item_id,timestamp\n", "\n\n"])
def test_parts_without_a_row_are_left_out_and_named(tmp_path: Path, nothing: str) -> None:
    for name, content in (("part-0.csv", nothing), ("part-1.csv", LOG), ("part-2.csv", nothing)):
        (tmp_path / name).write_text(content)
    data = _import(tmp_path)
    assert data.events["item_id"].to_list() == ["a", "b"]
    assert "2 of 3 files hold no row and are left out: part-0.csv, part-2.csv" in data.report["notes"]
    (tmp_path / "part-1.csv").write_text(nothing)
    with pytest.raises(DataError, match=r"is empty|no row|only blanks"):
        _import(tmp_path)


@pytest.mark.parametrize(
    "written",
    [
        ["31/01/2024", "01/02/2024"],
        ["1/31/2024 1:05:00 PM", "2/1/2024 11:00:00 AM"],
        ["31.01.2024 12:00", "01.02.2024 12:00"],
        ["31-JAN-24 12.00.00.000000 PM", "01-FEB-24 01.00.00.250000 AM"],
        ["31/Jan/2024:12:00:00 +0100", "01/Feb/2024:12:00:00 +0100"],
        ["Wed, 31 Jan 2024 12:00:00 +0000", "Thu, 01 Feb 2024 12:00:00 +0000"],
        ["31.01.24", "01.02.24"],
        ["2024/01/31 12:00:00", "2024/02/01 12:00:00"],
    ],
)
def test_the_advice_on_dates_reads_them(tmp_path: Path, written: list[str]) -> None:
    path = tmp_path / "log.tsv"
    error = _refusal(path, "user_id\titem_id\ttimestamp\n" + "".join(f"u\ta\t{time}\n" for time in written))
    assert (error.fix or "").startswith("say how they are written: --date-format '")
    times = _import(path, date_format=(error.fix or "").split("'")[1]).events["timestamp"].to_list()
    days = pl.Series(times).cast(pl.Datetime("ms")).dt.date()
    assert [f"{day:%Y-%m-%d}" for day in days] == ["2024-01-31", "2024-02-01"]


def test_dates_that_two_formats_read_are_given_both(tmp_path: Path) -> None:
    error = _refusal(tmp_path / "log.csv", "user_id,item_id,timestamp\nu,a,01/02/2024\n")
    fix = "say how they are written: --date-format '%d/%m/%Y' or --date-format '%m/%d/%Y'; both read all of them"
    assert error.fix == fix


@pytest.mark.parametrize(
    ("form", "name", "content", "advice"),
    [
        (Format.CSV, "l.csv", "user_id,item_id,timestamp\nu,a,45322.5\n", "count the days of a spreadsheet"),
        (Format.CSV, "l.csv", LOG.encode("utf-16-le"), "iconv -f utf-16"),
        (Format.CSV, "l.csv", "user_id item_id\nu a\n", "--separator ' '"),
        (Format.CSV, "l.csv", "item_id,title\na,A\n", "with --items"),
        (Format.CSV, "l.csv", '{"user_id": "u", "item_id": "a"}\n', "--format jsonl"),
        (Format.JSONL, "l.jsonl", '{"events": [{"user_id": "u", "item_id": "a"}]}\n', "jq -c"),
    ],
)
def test_the_advice_goes_with_the_file(tmp_path: Path, form: Format, name: str, content: str, advice: str) -> None:
    fix = _refusal(tmp_path / name, content, form).fix or ""
    assert advice in fix
    assert form is Format.CSV or "--no-header" not in fix


def test_a_quote_that_is_not_closed_is_named_with_its_line(tmp_path: Path) -> None:
    text = f'\n\nuser_id,item_id,timestamp,note\nu,a,{T},x\nu,b,{T},"open\nu,c,{T},x\nu,d,{T},x\n'
    error = _refusal(tmp_path / "log.csv", text)
    assert (error.what, error.where) == (
        "a quote is not closed before the end of the file",
        f"{tmp_path / 'log.csv'}, line 5",
    )


@pytest.mark.parametrize(
    "text", ['"user" "item" "rating"\n"u" "a" 5\n"u" "b" 4\n', "user_id item_id ts\nu a 1\nu b 2\n"]
)
def test_columns_between_blanks_are_not_guessed_to_be_histories(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.txt"
    path.write_text(text)
    form = guess_format(str(path), NOW)
    assert form is Format.CSV
    data = import_dataset(completed(ImportRequest(str(path), form), None, NOW), now_ms=NOW)
    assert data.events.select("user_id", "item_id").rows() == [("u", "a"), ("u", "b")]


def test_a_column_that_may_hold_the_times_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f",USER_ID,ITEM_ID,PHONE,EVENT_TS\n0,u,a,{T},2024-01-31 12:00:00.000 -0800\n")
    notes = _import(path).report["notes"]
    assert "column 'EVENT_TS' may hold the times; to use them, add --map time=EVENT_TS" in notes
    assert "columns that are not used: one without a name, PHONE, EVENT_TS" in notes
    path.write_text(f"user_id,item_id,phone\nu,a,{T}\n")
    assert not any("may hold the times" in note for note in _import(path).report["notes"])


def test_a_part_that_hive_wrote_is_guessed_with_its_partition(tmp_path: Path) -> None:
    path = tmp_path / "event=add%20to%20cart" / "000000_0"
    path.parent.mkdir()
    path.write_text(f"u\x01a\x01{T}\nu\x01b\x01{T + 1}\n")
    out = tmp_path / "d"
    shown = CliRunner().invoke(app, ["import", str(path), "--guess", "--yes", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert Dataset.load(out).events.select("item_id", "event_type").rows() == [("a", "cart"), ("b", "cart")]
    command = next(line for line in shown.output.splitlines() if line.startswith("  gpt4rec data import"))
    again = CliRunner().invoke(app, shlex.split(command)[2:])
    assert "--separator ctrl-a" in command
    assert again.exit_code == 0, again.output


def test_columns_that_blanks_align_are_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("user_id   item_id\nu         a\n")
    form = guess_format(str(path), NOW)
    with pytest.raises(DataError, match=r"sed -E 's/ \+/,/g' log\.txt > commas-log\.txt"):
        import_dataset(completed(ImportRequest(str(path), form), None, NOW), now_ms=NOW)


def test_ids_that_a_spreadsheet_wrote_as_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,timestamp\n=\"007\",a,{T}\n'008,b,{T}\n'70s fan',c,{T}\n")
    notes = _import(path).report["notes"]
    assert any(note.startswith("2 values of user_id are written as a spreadsheet's text") for note in notes)
