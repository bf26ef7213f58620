"""Wheels in parts: what is joined is what was split, and nothing is installed from parts that are not whole."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.engine.wheel_parts import INDEX, PartsError, join, main, split


def wheel(folder: Path, name: str = "tiny_thing") -> Path:
    """Writes a wheel with one module."""
    file = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "answer = 42\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return file


@settings(max_examples=25, deadline=None)
@given(content=st.binary(max_size=200), part=st.integers(1, 64))
def test_what_is_joined_is_what_was_split(content: bytes, part: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("parts")
    (folder / "a.whl").write_bytes(content)
    (folder / "b.whl").write_bytes(content[::-1])
    files = split([folder / "a.whl", folder / "b.whl"], folder / "parts", part)
    assert max(file.stat().st_size for file in files[1:]) <= part
    first, second = join(folder / "parts", folder / "joined")
    assert (first.read_bytes(), second.read_bytes()) == (content, content[::-1])


def test_missing_and_damaged_parts_are_all_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(os.urandom(100))
    split([tmp_path / "a.whl"], tmp_path / "parts", 30)
    (tmp_path / "parts" / "a.whl.001").unlink()
    (tmp_path / "parts" / "a.whl.003").write_bytes(b"x")
    with pytest.raises(PartsError, match=r"a\.whl\.001 is missing; a\.whl\.003 is damaged"):
        join(tmp_path / "parts", tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_an_index_names_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"abc")
    split([tmp_path / "a.whl"], tmp_path / "parts", 30)
    index = tmp_path / "parts" / INDEX
    index.write_text(
        json.dumps(json.loads(index.read_text()) | {"wheels": [{"wheel": "../b", "parts": [], "sha256": ""}]})
    )
    with pytest.raises(PartsError, match="no name of a file"):
        join(tmp_path / "parts", tmp_path / "joined")
    index.write_text(json.dumps({"format": 9}))
    with pytest.raises(PartsError, match="format 9"):
        join(tmp_path / "parts", tmp_path / "joined")


def test_the_command_splits_here_and_installs_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there"
    assert main(["split", "--out", str(tmp_path / "parts"), "--part-mib", "0.0001", str(wheel(tmp_path))]) == 0
    there.mkdir()
    for part in (tmp_path / "parts").iterdir():  # one transfer each
        (there / part.name).write_bytes(part.read_bytes())
    assert main(["join", str(there), "--install", str(tmp_path / "site")]) == 0
    assert (tmp_path / "site" / "tiny_thing.py").read_text() == "answer = 42\n"
    capsys.readouterr()
    assert main(["join", str(tmp_path / "nowhere")]) == 1
    assert "carry it too" in capsys.readouterr().err
    assert main(["split", "--out", str(there), str(wheel(tmp_path, "other"))]) == 1
    assert "is not empty" in capsys.readouterr().err
