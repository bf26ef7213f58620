"""A log that is imported in parts: the rows, the files and the fingerprint of an import in memory."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from model.cli.data import app
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest, TextOptions
from model.data.importing import import_dataset
from model.data.streamed import engine
from model.data.streamed.engine import Sizes
from model.data.streamed.importing import import_streamed
from service.history.encode_all import users_of
from tests.support.random_logs import FORMATS, random_logs, write_log

NOW_MS = 1_700_000_000_000
SMALL = Sizes(piece_bytes=300, piece_rows=7, partitions=3, block=10)


def request_of(files: list[str], form: str, tables: list[pl.DataFrame], **more: Any) -> ImportRequest:
    kind = {"jsonl": Format.JSONL, "parquet": Format.PARQUET}.get(form, Format.CSV)
    roles = {"user_id": "user", "item_id": "item", "timestamp": "time", "event_type": "type", "session_id": "session"}
    columns = {roles.get(name, name): str(number) for number, name in enumerate(tables[0].columns, 1)}
    text = TextOptions(header=form != "no-header")
    return ImportRequest(
        files[0], kind, more=tuple(files[1:]), text=text, columns=columns if form == "no-header" else {}, **more
    )


def same(streamed: Dataset, whole: Dataset) -> None:
    assert streamed.events.equals(whole.events)
    assert streamed.items.equals(whole.items)
    assert streamed.users.equals(whole.users)
    assert streamed.fingerprint == whole.fingerprint
    assert (streamed.name, streamed.source, streamed.has_time) == (whole.name, whole.source, whole.has_time)
    for key, value in whole.report.items():
        if key not in ("notes", "dropped", "density"):
            assert streamed.report[key] == value, key
    assert streamed.report["density"] == pytest.approx(whole.report["density"])
    assert sum(streamed.report["dropped"].values()) == sum(whole.report["dropped"].values())


@given(random_logs(), st.sampled_from(FORMATS), st.integers(1, 3))
@settings(deadline=None, max_examples=12)
def test_a_log_in_parts_is_the_log_in_memory(tables: list[pl.DataFrame], form: str, partitions: int) -> None:
    sizes = Sizes(700, 15, partitions, 25)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        request = request_of(write_log(tables, folder / "log", form), form, tables)
        try:
            streamed = import_streamed(request, folder / "data", now_ms=NOW_MS, sizes=sizes)
        except DataError as refused:  # what it cannot know from its parts, or what cannot be used at all
            assert streamed_may_refuse(request, refused)
            return
        whole = import_dataset(request, now_ms=NOW_MS)
        same(Dataset.load(folder / "data"), whole)
        assert streamed["fingerprint"] == whole.fingerprint
        assert sorted(path.name for path in folder.iterdir()) == ["data", "log"]


def streamed_may_refuse(request: ImportRequest, refused: DataError) -> bool:
    if "--no-stream" in str(refused):
        return True
    with pytest.raises(DataError):
        import_dataset(request, now_ms=NOW_MS)
    return True


@pytest.fixture
def log(tmp_path: Path) -> ImportRequest:
    n = range(90)
    times = [str(1_600_000_000 + i % 9) for i in n]
    rows = pl.DataFrame({"user_id": [f"u{i % 7}" for i in n], "item_id": [f"i{i % 5}" for i in n], "timestamp": times})
    tables = [rows[:50], rows[50:]]
    return request_of(write_log(tables, tmp_path / "log", "csv"), "csv", tables)


def test_an_interrupted_import_goes_on_where_it_was(log: ImportRequest, tmp_path: Path) -> None:
    done: list[str] = []

    def interrupted_after(steps: int) -> Any:
        def step(text: str) -> None:
            done.append(text)
            if len(done) > steps:
                raise KeyboardInterrupt

        return step

    for steps in (3, 6, 6):
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            import_streamed(log, tmp_path / "data", interrupted_after(steps), NOW_MS, SMALL)
    again: list[str] = []
    import_streamed(log, tmp_path / "data", again.append, sizes=SMALL)
    assert again[1] == done[-1]  # behind the cutting, which is done each time
    assert len(set(again)) == len(again)
    same(Dataset.load(tmp_path / "data"), import_dataset(log, now_ms=NOW_MS))


def test_a_log_that_changed_is_read_anew(log: ImportRequest, tmp_path: Path) -> None:
    def stop(text: str) -> None:
        if text.startswith("block"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_streamed(log, tmp_path / "data", stop, NOW_MS, SMALL)
    with Path(log.source).open("a") as file:
        file.write("new,i0,1600000000\n")
    import_streamed(log, tmp_path / "data", now_ms=NOW_MS, sizes=SMALL)
    same(Dataset.load(tmp_path / "data"), import_dataset(log, now_ms=NOW_MS))


def test_the_side_tables_are_those_of_an_import_in_memory(log: ImportRequest, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,category\ni1,One,a > b\nnew,New,a\n")
    (tmp_path / "users.csv").write_text("user_id,region\nu1,north\nu2,south\n")
    request = ImportRequest(
        log.source, log.format, more=log.more, items=tmp_path / "items.csv", users=tmp_path / "users.csv"
    )
    import_streamed(request, tmp_path / "data", now_ms=NOW_MS, sizes=SMALL)
    same(Dataset.load(tmp_path / "data"), import_dataset(request, now_ms=NOW_MS))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["u,i,1600000000"] * 40 + ["u,i,1600000000000"] * 40, "times in different ways"),
        (["7.0,i,1600000000"] * 40 + ["x,i,1600000000"] * 40, "user ids in different ways"),
        ([f"u,i,{n}" for n in range(1, 80)], "the time column may count the events"),
    ],
)
def test_what_only_all_rows_can_tell_is_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    with pytest.raises(DataError, match=said) as refused:
        import_streamed(ImportRequest(str(tmp_path / "log.csv"), Format.CSV), tmp_path / "data", sizes=SMALL)
    assert "--no-stream" in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_other_formats_and_the_standard_input_are_refused(tmp_path: Path) -> None:
    for source, form in (("-", Format.CSV), (str(tmp_path), Format.MOVIELENS)):
        with pytest.raises(DataError, match="cannot be streamed"):
            import_streamed(ImportRequest(source, form), tmp_path / "data")


def test_the_commands_import_count_and_list_the_users(log: ImportRequest, tmp_path: Path) -> None:
    runner, data, users = CliRunner(), tmp_path / "data", tmp_path / "users"
    asked = ["import", *log.sources, "--format", "csv", "--out", str(data), "--json"]
    told = [json.loads(runner.invoke(app, [*asked, flag]).stdout) for flag in ("--no-stream", "--stream")]
    assert told[0]["fingerprint"] == told[1]["fingerprint"]
    counted = runner.invoke(app, ["count", "--data", str(data), "--out", str(tmp_path / "counts"), "--json"])
    assert json.loads(counted.stdout)["fingerprint"] == told[0]["fingerprint"]
    assert runner.invoke(app, ["count", "--data", str(data), "--out", str(tmp_path), "--kind", "x"]).exit_code == 2
    assert runner.invoke(app, ["users", "--data", str(data), "--out", str(users)]).exit_code == 0
    assert [user for user, _ in users_of(users)] == Dataset.load(data).users["user_id"].to_list()


def test_a_log_streams_by_itself_from_a_size_on(log: ImportRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not engine.streams(log)
    monkeypatch.setattr(engine, "STREAM_FROM", 1000)
    assert engine.streams(log)
