"""Array files: mapped, aligned, and refused if damaged."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.artifact import arrays
from service.artifact.arrays import ALIGNMENT, ArrayFileError, map_arrays, save_arrays

ARRAYS: Mapping[str, Any] = {
    "small": np.arange(3, dtype=np.int64),
    "a_longer_name_than_the_others": np.random.default_rng(0).random((17, 5), np.float32),
    "one": np.float64(0.5),
    "text": np.str_("kind"),
    "nothing": np.zeros((0, 4), np.int32),
    "bytes": np.frombuffer(b"hello", np.uint8),
}


@pytest.fixture(params=["read", "mapped"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "mapped":
        monkeypatch.setattr(arrays, "READ_BYTES_MAX", 0)
    save_arrays(tmp_path / "x.npz", **ARRAYS)
    return tmp_path / "x.npz"


def test_arrays_are_read_back_by_mapping_and_by_numpy(file: Path) -> None:
    mapped = map_arrays(file)
    with np.load(file, allow_pickle=False) as loaded:
        assert set(mapped) == set(loaded.files) == set(ARRAYS)
        for name, array in ARRAYS.items():
            for read in (mapped[name], loaded[name]):
                assert read.dtype == np.asarray(array).dtype and read.shape == np.shape(array)
                np.testing.assert_array_equal(read, array)


def test_mapped_arrays_are_aligned_and_read_only(file: Path) -> None:
    for array in map_arrays(file).values():
        if array.size:
            assert array.ctypes.data % ALIGNMENT == 0
            assert not array.flags.writeable


def test_an_array_outlives_the_name_of_its_file(file: Path) -> None:
    mapped = map_arrays(file)
    file.unlink()
    assert mapped["small"].tolist() == [0, 1, 2]


def test_a_small_file_may_be_cut_or_overwritten_in_place(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, **ARRAYS)
    loaded = map_arrays(path)
    for size in (path.stat().st_size, 0):
        with path.open("r+b") as raw:
            raw.write(bytes(size))
            raw.truncate(size)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], array)


def test_the_same_arrays_give_the_same_bytes(file: Path, tmp_path: Path) -> None:
    save_arrays(tmp_path / "again.npz", **ARRAYS)
    assert file.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_damaged_files_are_refused(file: Path) -> None:
    good = file.read_bytes()
    for damage in (b"", b"PK\x03\x04", b"\x93NUMPY", b"hello", good[: len(good) // 2], b"X" * 4 + good[4:]):
        file.write_bytes(damage)
        with pytest.raises(ArrayFileError, match="damaged"):
            map_arrays(file)
    for place in range(0, 256, 3):  # the first member's headers
        file.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        with contextlib.suppress(ArrayFileError):
            map_arrays(file)


def test_compressed_arrays_and_other_members_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", x=np.zeros(100))
    with zipfile.ZipFile(tmp_path / "o.npz", "w") as other:
        other.writestr("readme.txt", "hello")
    for name in ("c.npz", "o.npz"):
        with pytest.raises(ArrayFileError, match="not a stored array"):
            map_arrays(tmp_path / name)


def test_arrays_of_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save_arrays(tmp_path / "x.npz", x=np.array([{}], object))
    np.savez(tmp_path / "o.npz", x=np.array([{}], object))
    with pytest.raises(ArrayFileError):
        map_arrays(tmp_path / "o.npz")
