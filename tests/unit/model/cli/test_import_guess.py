from __future__ import annotations

import bz2
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from model.cli.data import app
from model.cli.import_guess import ask
from model.data.dataset import Dataset

T = 1_700_000_000
LOG = f"u1,a,{T}\nu1,b,{T + 1}\nu2,a,{T + 2}\n"
FEEDBACK = f"feedback_type,user_id,item_id,time_stamp\nread,u1,a,{T}\nlike,u1,b,{T}\n"
RECBOLE = f"user_id:token\titem_id:token\ttimestamp:float\nu1\ta\t{T}\nu1\tb\t{T}\n"
GA4 = (
    f'{{"event_name": "view_item", "event_timestamp": {T}000000, "user_pseudo_id": "u1", "items": [{{"item_id": "a"}}, '
    '{"item_id": "b"}]}\n'
)
SOURCES: dict[str, tuple[str, str]] = {
    "plain.csv": (f"visitor;sku;ts\nu1;a;{T}\nu1;b;{T}\n", "csv"),
    "bare.csv": (LOG, "csv"),
    "excel.csv": (f"sep=;\nvisitor;sku;ts\nu1;a;{T}\nu1;b;{T}\n", "csv"),
    "tabs.tsv": (f"user_id\titem_id\ttimestamp\nu1\ta\t{T}\nu1\tb\t{T}\n", "csv"),
    "blanks.txt": (f"user_id item_id timestamp\nu1 a {T}\nu1 b {T}\n", "csv"),
    "colons.dat": (LOG.replace(",", "::"), "csv"),
    "piped.txt": ("user_id|item_id|event\nu1|a|view\nu1|b|buy\n", "csv"),
    "log.json": ('[{"userId": "u1", "sku": "a"}, {"userId": "u1", "sku": "b"}]', "jsonl"),
    "ga4.json": (GA4, "ga4"),
    "UserBehavior.csv": (f"u1,a,9,pv,{T}\nu1,b,9,buy,{T}\n", "taobao"),
    "feedback.csv": (FEEDBACK, "gorse"),
    "x.inter": (RECBOLE, "recbole"),
    "sequences.txt": ("u1 a b\nu2 a b\n", "sequences"),
    "packed.csv.bz2": (LOG, "csv"),
}


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    content = SOURCES[request.param][0].encode()
    path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
    return path


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_a_source_is_understood_shown_and_imported_as_the_printed_command_does(source: Path, tmp_path: Path) -> None:
    runner, out = CliRunner(), tmp_path / "d"
    shown = runner.invoke(app, ["import", str(source), "--guess", "--out", str(out)])
    assert shown.exit_code == 2, shown.output
    assert "add --yes" in shown.stderr
    assert not out.exists()
    assert SOURCES[source.name][1] in shown.stdout
    assert runner.invoke(app, ["import", str(source), "--guess", "--yes", "--out", str(out)]).exit_code == 0
    guessed = Dataset.load(out)
    assert guessed.events["user_id"][0] == "u1"
    assert guessed.events["item_id"].unique().sort().to_list() == ["a", "b"]
    command = next(line for line in shown.stdout.splitlines() if line.startswith("  gpt4rec data import"))
    assert runner.invoke(app, shlex.split(command)[2:]).exit_code == 0
    assert Dataset.load(out).fingerprint == guessed.fingerprint


def test_what_is_named_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    words = ["import", str(tmp_path / "log.csv"), "--guess", "--map", "user=2,item=1", "--out", str(tmp_path / "d")]
    assert CliRunner().invoke(app, [*words, "--yes"]).exit_code == 0
    assert Dataset.load(tmp_path / "d").events["user_id"].unique().sort().to_list() == ["a", "b"]


def test_an_answer_of_no_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    with pytest.raises(typer.Exit) as ended:
        ask(yes=False, err=False)
    assert ended.value.exit_code == 1


def test_a_guess_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(RECBOLE)
    words = ["import", str(tmp_path / "x.inter"), str(tmp_path / "x.inter"), "--guess", "--out", str(tmp_path / "d")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "looks like recbole" in result.output
    result = CliRunner().invoke(app, ["import", str(tmp_path / "no"), "--guess", "--out", str(tmp_path / "d")])
    assert result.exit_code == 1
    assert "there is no such file" in result.stderr
