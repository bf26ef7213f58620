"""Vectors that come with a data set: read from npz and parquet, bounded, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from model.data import vectors
from model.data.checks import Findings
from model.data.dataset import Dataset
from model.data.errors import DataError
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset
from model.data.readers import vector_files
from model.data.readers.vector_files import read_vectors
from model.data.together import together
from model.data.vectors import ItemVectors

IDS = ["a", "b", "c", "zz"]
VALUES = np.array([[3, 0, 4], [0, 1, 0], [0, 0, 0], [1, 1, 1]], np.float32)


def npz(path: Path, ids: Any = None, values: Any = VALUES, **more: Any) -> Path:
    np.savez(path, item_id=np.array(IDS if ids is None else ids), vectors=values, **more)
    return path


def parquet(path: Path, ids: Any = IDS, values: Any = VALUES) -> Path:
    pl.DataFrame({"item_id": ids, "vector": values.tolist()}).write_parquet(path)
    return path


def imported(folder: Path, file: Path) -> Dataset:
    (folder / "log.csv").write_text("user_id,item_id,timestamp\nu,a,1740820364\nu,b,1740820365\nv,c,1740820366\n")
    return import_dataset(ImportRequest(str(folder / "log.csv"), Format.CSV, vectors=file))


@pytest.mark.parametrize("write", [npz, parquet])
def test_a_data_set_keeps_the_vectors_of_its_items_and_names_the_rest(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    data = imported(tmp_path, write(tmp_path / ("v.npz" if write is npz else "v.parquet")))
    data.save(tmp_path / "data")
    kept = Dataset.load(tmp_path / "data").vectors
    assert kept is not None and list(kept.item_ids) == ["a", "b"]
    assert (kept.values == VALUES[:2]).all()
    assert data.report["dropped"] == {"vectors of items that neither the log nor the item table has": 1}
    assert "vectors of unknown items, left out: 'zz'" in data.report["notes"]
    assert "1 of 3 items have no vector: 'c'" in data.report["notes"]


def test_vectors_are_asked_for_by_item_and_have_length_one_or_none() -> None:
    given = ItemVectors(IDS[:2], VALUES[:2])
    assert given.of(["x", "b", "a"]) == pytest.approx(np.array([[0, 0, 0], [0, 1, 0], [0.6, 0, 0.8]]))
    assert given.of([]).shape == (0, 3)


def test_the_fingerprint_knows_the_vectors_and_a_data_set_without_keeps_its_own(tmp_path: Path) -> None:
    some = imported(tmp_path, npz(tmp_path / "v.npz"))
    other = imported(tmp_path, npz(tmp_path / "w.npz", values=VALUES + 1))
    bare = import_dataset(ImportRequest(str(tmp_path / "log.csv"), Format.CSV))
    assert len({some.fingerprint, other.fingerprint, bare.fingerprint}) == 3
    some.save(tmp_path / "data")
    (tmp_path / "data" / vectors.FILE).unlink()
    with pytest.raises(DataError, match="fingerprints differ"):
        Dataset.load(tmp_path / "data")
    bare.save(tmp_path / "data")
    assert Dataset.load(tmp_path / "data").vectors is None


def test_two_data_sets_as_one_have_the_vectors_of_both_the_newer_first(tmp_path: Path) -> None:
    old = imported(tmp_path, npz(tmp_path / "v.npz"))
    new = imported(tmp_path, npz(tmp_path / "w.npz", ids=["b", "c", "y", "z"], values=VALUES + 1))
    both = together(old, new).vectors
    assert both is not None and list(both.item_ids) == ["a", "b", "c"]
    assert (both.values == np.array([VALUES[0], VALUES[0] + 1, VALUES[1] + 1])).all()
    wider = imported(tmp_path, npz(tmp_path / "x.npz", values=np.ones((4, 5))))
    with pytest.raises(DataError, match="3 dimensions, those of the new data 5"):
        together(old, wider)


@pytest.mark.parametrize(
    ("ids", "values", "said"),
    [
        (["a", "a", "b", "c"], VALUES, "1 items have several vectors: 'a'"),
        (IDS, VALUES * [[1], [np.nan], [1], [1]], "1 vectors have numbers that are not finite: 'b'"),
        (IDS, VALUES[:3], r"a row for each of the 4 ids, not float32 \(3, 3\)"),
        (IDS, VALUES.astype(str), "vectors must be numbers"),
        (IDS, VALUES.reshape(4, 3, 1), "vectors must be numbers"),
        (IDS, np.ones((4, vectors.DIM_MAX + 1)), "the vectors are too large"),
        ([1.5, 2.5, 3.5, 4.5], VALUES, "item_id must be a row of texts"),
        (["", "b", "c", "d"], VALUES, "item ids of vectors are missing"),
        (["k", "l", "m", "n"], VALUES, "no vector is of an item of the data set"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, ids: Any, values: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        imported(tmp_path, npz(tmp_path / "v.npz", ids, values))


def test_an_archive_of_objects_a_damaged_one_and_one_that_would_unpack_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = tmp_path / "objects.npz"
    np.savez(objects, item_id=np.array(["a", None], dtype=object), vectors=VALUES[:2])
    with pytest.raises(DataError, match="the archive cannot be read"):
        read_vectors(objects, Findings())
    whole = npz(tmp_path / "v.npz").read_bytes()
    for length in range(4, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_vectors(tmp_path / "cut.npz", Findings())
    np.savez(tmp_path / "other.npz", ids=np.arange(4))
    with pytest.raises(DataError, match="lacks item_id or vectors"):
        read_vectors(tmp_path / "other.npz", Findings())
    monkeypatch.setattr(vector_files, "_BYTES_MAX", 64)
    with pytest.raises(DataError, match="too large"):
        read_vectors(tmp_path / "v.npz", Findings())


def test_lists_of_unequal_length_and_other_columns_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "v.parquet"
    pl.DataFrame({"item_id": IDS, "vector": [[1.0], [1.0, 2.0], [1.0], None]}).write_parquet(file)
    with pytest.raises(DataError, match="other numbers of dimensions: 'b', 'zz'"):
        read_vectors(file, Findings())
    pl.DataFrame({"item_id": IDS, "vector": [1, 2, 3, 4]}).write_parquet(file)
    with pytest.raises(DataError, match="holds no lists of numbers"):
        read_vectors(file, Findings())
    pl.DataFrame({"id": IDS}).write_parquet(file)
    with pytest.raises(DataError, match="lacks item_id or vector; it has id"):
        read_vectors(file, Findings())
    with pytest.raises(DataError, match="there is no such file"):
        read_vectors(tmp_path / "none.npz", Findings())


def test_whole_numbers_are_ids(tmp_path: Path) -> None:
    assert list(read_vectors(npz(tmp_path / "v.npz", [7, 8, 9, 10]), Findings()).item_ids) == ["7", "8", "9", "10"]
