"""Whatever the system refuses, a command ends with a sentence and exit code 1, and leaves nothing half-written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.cli.__main__ import run
from service.cli.outermost import sentences
from tests.support.data_builders import tiny_dataset

LOG = "user_id,item_id,timestamp\nü1,a,1700000000\nü1,b,1700000001\n"
COMMANDS = {
    "data import": ["data", "import", "{home}/log.csv", "--format", "csv", "--out", "{out}"],
    "train": ["train", "--data", "{home}/data", "--out", "{out}"],
    "export": ["export", "--data", "{home}/data", "--baseline", "popularity", "--out", "{out}"],
    "evaluate": ["evaluate", "--data", "{home}/data", "--run", "{home}/run", "--json", "{out}"],
    "data like": ["data", "like", "--run", "{home}/run", "--items", "{home}/log.csv", "--out", "{out}"],
}
# How much a file may grow: train and export load libraries that need a small file of their own.
LIMITS = {"train": 64, "export": 64}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "log.csv").write_text(LOG, encoding="utf-8")
    tiny_dataset().save(folder / "data")
    return folder


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes: what a process sees of a full disk, also as root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended, sentences("gpt4rec"):
        run(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 1, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with full_disk(LIMITS.get(name, 0)):
        said = _refused([word.format(home=home, out=out) for word in COMMANDS[name]], capsys)
    assert "would be larger than this process may write" in said
    assert f"where: {out}" in said
    assert "fix:" in said
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []
    assert name == "train" or list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("name", ["data import", "data like"])
def test_a_path_that_cannot_be_is_a_sentence(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = home / "log.csv" / "out"
    said = _refused([word.format(home=home, out=out) for word in COMMANDS[name]], capsys)
    assert str(home / "log.csv") in said
    assert "\n  fix:" in said


def _gpt4rec(*arguments: str, **environment: str) -> list[str]:
    return [*(["env", *(f"{k}={v}" for k, v in environment.items())]), sys.executable, "-m", "service.cli", *arguments]


def test_a_reader_that_is_gone_ends_a_command_without_a_word() -> None:
    with subprocess.Popen(_gpt4rec("keys", "new", "ada"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(60) == 1
    assert "Traceback" not in said
    assert "Exception" not in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110
def test_an_output_on_a_full_disk_is_a_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            _gpt4rec("keys", "new", "ada"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == (
        "gpt4rec: the disk is full\n  where: the standard output\n"
        "  fix:   free space there, or name a folder on another disk\n"
    )


def test_a_locale_that_knows_ascii_alone_reads_and_writes_everything(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "größe"
    words = ["data", "import", str(home / "log.csv"), "--format", "csv", "--out", str(out)]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(_gpt4rec(*words, **locale), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "log → " in done.stdout.decode()
    assert (out / "meta.json").exists()


def test_streams_that_the_caller_closed_are_no_traceback_and_no_file(home: Path, tmp_path: Path) -> None:
    def closed(arguments: list[str], streams: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "service.cli", "data", "import", *arguments, "--out", str(tmp_path / "d")]
        shell = ["bash", "-c", f'exec "$@" {streams}', "bash", *words]
        return subprocess.run(shell, capture_output=True, text=True, timeout=120, check=False)

    empty = closed(["-", "--format", "csv"], "<&-")
    assert (empty.returncode, empty.stderr.splitlines()[0]) == (1, "gpt4rec: the standard input is empty")
    asked = closed([str(home / "log.csv"), "--guess"], "<&- >&-")
    assert asked.returncode == 2
    assert "there is no terminal to ask" in asked.stderr
    assert not (tmp_path / "d").exists()
