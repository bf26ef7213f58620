"""Reads vectors of items: an npz archive with `item_id` and `vectors`, or parquet with `item_id` and `vector`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from model.data.checks import Findings
from model.data.errors import DataError, quoted
from model.data.files import ZIP_MAGIC, read_parquet
from model.data.ids import as_ids
from model.data.times import Place
from model.data.vectors import DIM_MAX, VALUES_MAX, ItemVectors
from service.artifact.array_types import FloatArray

_HOW = "write np.savez(FILE, item_id=ids, vectors=vectors), or parquet with columns item_id and vector"
# Bytes of an array in an archive: float64 numbers, or ids of 128 characters in four bytes each.
_BYTES_MAX = 8 * VALUES_MAX


def read_vectors(path: Path, findings: Findings) -> ItemVectors:
    """Reads the vectors of items.

    Args:
        path: An `.npz` archive or a parquet file.
        findings: Receives notes on the ids.

    Returns:
        The vectors, as the file has them; some may be all zeros.

    Raises:
        DataError: The file is missing, damaged or too large, or ids or numbers in it cannot be used.
    """
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="check the path")
    with path.open("rb") as file:
        packed = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    ids, values = _npz(path) if packed else _parquet(path)
    place = Place(str(path), pl.Series(np.arange(1, len(ids) + 1)), "row", "item_id")
    named = as_ids(ids, place, "item", findings)
    _check(named, values, path)
    return ItemVectors(named.to_list(), values.astype(np.float32))


def _npz(path: Path) -> tuple[pl.Series, npt.NDArray[np.float64] | FloatArray]:
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.file_size > _BYTES_MAX for member in archive.infolist()):
                raise _too_large(path)
        with np.load(path, allow_pickle=False) as arrays:
            name = "vectors" if "vectors" in arrays else "vector"
            ids, values = arrays["item_id"], arrays[name]
    except KeyError as error:
        raise DataError("the archive lacks item_id or vectors", where=str(path), fix=_HOW) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"the archive cannot be read: {error}", where=str(path), fix=_HOW) from error
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise DataError(
            "item_id must be a row of texts or whole numbers", where=str(path), fix="item_id=np.array(ids, dtype=str)"
        )
    return pl.Series("item_id", ids.astype(str) if ids.dtype.kind == "U" else ids), values


def _parquet(path: Path) -> tuple[pl.Series, FloatArray]:
    table = read_parquet(path)
    if not {"item_id", "vector"} <= set(table.columns):
        raise DataError(
            f"the table lacks item_id or vector; it has {', '.join(table.columns)}", where=str(path), fix=_HOW
        )
    column = table["vector"]
    inner = getattr(column.dtype, "inner", None)
    if inner is None or not inner.is_numeric():
        raise DataError("the column vector holds no lists of numbers", where=str(path), fix=_HOW)
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len()
        if column.null_count() or lengths.n_unique() != 1:
            odd = table["item_id"].cast(pl.String).filter(lengths.fill_null(0) != (lengths.mode().max() or 0))
            raise DataError(
                f"vectors are missing or have other numbers of dimensions: {quoted(odd)}",
                where=str(path),
                fix="give every item of the file a vector of the same length, or leave it out",
            )
        column = column.cast(pl.Array(inner, int(lengths[0])))
    _check_size(path, len(column), column.dtype.shape[0])  # type: ignore[attr-defined]
    return table["item_id"], column.cast(pl.Array(pl.Float32, column.dtype.shape[0])).to_numpy()  # type: ignore[attr-defined]


def _check(ids: pl.Series, values: npt.NDArray[np.float64] | FloatArray, path: Path) -> None:
    where = str(path)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or len(values) != len(ids) or not len(values):
        raise DataError(
            f"vectors must be numbers [items, dimensions] with a row for each of the {len(ids)} ids, "
            f"not {values.dtype} {values.shape}",
            where=where,
            fix=_HOW,
        )
    _check_size(path, *values.shape)
    if ids.null_count():
        raise DataError("item ids of vectors are missing", where=where, fix="leave such rows out")
    twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(twice):
        raise DataError(
            f"{len(twice)} items have several vectors: {quoted(twice)}", where=where, fix="keep one of each"
        )
    finite = np.isfinite(values.astype(np.float32, copy=False)).all(axis=1)
    if not finite.all():
        bad = ids.filter(pl.Series(~finite))
        raise DataError(
            f"{len(bad)} vectors have numbers that are not finite: {quoted(bad)}", where=where, fix="leave them out"
        )


def _check_size(path: Path, n: int, dim: int) -> None:
    if not 1 <= dim <= DIM_MAX or n * dim > VALUES_MAX:
        raise _too_large(path)


def _too_large(path: Path) -> DataError:
    return DataError(
        f"the vectors are too large: at most {DIM_MAX} dimensions and {VALUES_MAX} numbers in all",
        where=str(path),
        fix="reduce them first, with a truncated SVD for example",
    )
