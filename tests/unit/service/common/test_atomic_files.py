from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from service.common.atomic_files import naming, replacing, require_writable, save_aside, write_aside
from service.common.os_errors import sentence


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    write_aside(path, b"old")
    with pytest.raises(RuntimeError, match="halfway"), replacing(path) as aside:
        aside.write_bytes(b"ne")
        raise RuntimeError("halfway")
    assert path.read_bytes() == b"old"
    save_aside(tmp_path / "a.npy", np.arange(3))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "kept.json"]


def test_what_is_no_file_is_written_in_place(tmp_path: Path) -> None:
    write_aside(Path("/dev/null"), b"x")
    assert not Path("/dev/null").is_file()
    require_writable(Path("/dev/null"))


@pytest.mark.parametrize(
    "raised",
    [OSError(errno.ENOSPC, "No space left on device"), ValueError("I/O error: No space left on device (os error 28)")],
)
def test_an_error_that_names_no_file_gets_one(raised: Exception) -> None:
    with pytest.raises(OSError, match="No space left") as caught, naming(Path("/data/shop")):
        raise raised
    assert sentence(caught.value).splitlines() == [
        "the disk is full",
        "  where: /data/shop",
        "  fix:   free space there, or name a folder on another disk",
    ]


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(FileNotFoundError) as caught, naming(Path("/data/shop")):
        raise FileNotFoundError(errno.ENOENT, "No such file", "inner")
    assert caught.value.filename == "inner"
    with pytest.raises(ValueError, match="not of the system"), naming(Path("/data/shop")):
        raise ValueError("not of the system")


@pytest.mark.parametrize(("name", "number"), [("", errno.EISDIR), ("no/file", errno.ENOENT), ("file/x", errno.ENOTDIR)])
def test_a_file_that_cannot_be_written_is_known_before_the_work(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    require_writable(tmp_path / "file")
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        require_writable(tmp_path / name)
    assert caught.value.errno == number
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_words_of_a_program_are_kept() -> None:
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    assert sentence(error).startswith("No usable temporary directory found in ['/tmp']\n  fix:")
