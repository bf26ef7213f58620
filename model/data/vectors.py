"""Vectors that came with a data set: one for an item, whatever they were made of (an image, audio, a knowledge graph).

    DATA/vectors.parquet   item_id, vector (a fixed number of float32)

A data set has this file only where `gpt4rec data import --vectors` gave it one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from model.data.checks import Findings
from model.data.errors import DataError, quoted
from service.artifact.array_types import FloatArray

FILE = "vectors.parquet"
DIM_MAX = 4096
# Numbers in all vectors: 1 GiB of float32. A training holds them a few times.
VALUES_MAX = 1 << 28


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Vectors of items.

    Attributes:
        item_ids: [n] ids, each of them once.
        values: [n, dim] finite float32, none of them all zeros.
    """

    item_ids: Sequence[str]
    values: FloatArray

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.values.shape[1])

    def of(self, item_ids: Sequence[str]) -> FloatArray:
        """Returns [items, dim] vectors scaled to length 1, zeros for items without one.

        Args:
            item_ids: [items] the items, in any order.
        """
        rows = {item: row for row, item in enumerate(self.item_ids)}
        out = np.zeros((len(item_ids), self.dim), np.float32)
        there = [(at, rows[item]) for at, item in enumerate(item_ids) if item in rows]
        if there:
            at, row = np.array(there).T
            found = self.values[row].astype(np.float64)
            out[at] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return out

    def only(self, item_ids: Sequence[str]) -> ItemVectors | None:
        """Returns the vectors of some items; None if none of them has one."""
        wanted = set(item_ids)
        rows = [row for row, item in enumerate(self.item_ids) if item in wanted]
        return ItemVectors([self.item_ids[row] for row in rows], self.values[rows]) if rows else None

    def digest(self, tables: str) -> str:
        """Returns the fingerprint of a data set with these vectors, from that of its tables."""
        digest = hashlib.sha256(f"{tables}|{self.values.shape}|".encode())
        for item in self.item_ids:
            digest.update(f"{len(item)}:{item}".encode())
        digest.update(np.ascontiguousarray(self.values, "<f4").tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Writes `vectors.parquet` into a folder."""
        vector = pl.Series("vector", self.values, dtype=pl.Array(pl.Float32, self.dim))
        pl.DataFrame([pl.Series("item_id", list(self.item_ids), dtype=pl.String), vector]).write_parquet(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> ItemVectors | None:
        """Reads what `save` wrote; None if a folder has no vectors.

        Raises:
            OSError: The file cannot be read.
            PolarsError: The file is damaged.
        """
        if not (folder / FILE).exists():
            return None
        table = pl.read_parquet(folder / FILE, columns=["item_id", "vector"])
        return cls(table["item_id"].to_list(), table["vector"].to_numpy().astype(np.float32, copy=False))


def matched(given: ItemVectors, items: Sequence[str], file: str, findings: Findings) -> ItemVectors:
    """Returns the vectors of the catalogue's items, in its order, and notes which are missing or of no item.

    Args:
        given: Vectors, as a reader read them; all zeros count as none.
        items: [items] the catalogue.
        file: Name of the file, for messages.
        findings: Receives the notes.

    Raises:
        DataError: No item of the catalogue has a vector.
    """
    catalogue = set(items)
    has = (given.values != 0).any(axis=1).tolist()
    row_of = {item: row for row, item in enumerate(given.item_ids) if has[row] and item in catalogue}
    unknown = [item for item in given.item_ids if item not in catalogue]
    if not row_of:
        raise DataError(
            f"no vector is of an item of the data set: the file has {quoted(given.item_ids)}, "
            f"the data set {quoted(items)}",
            where=file,
            fix="write the ids as the log has them",
        )
    missing = [item for item in items if item not in row_of]
    if unknown:
        findings.drop("vectors of items that neither the log nor the item table has", len(unknown))
        findings.note(f"vectors of unknown items, left out: {quoted(unknown, 5)}")
    if missing:
        findings.note(f"{len(missing)} of {len(items)} items have no vector: {quoted(missing, 5)}")
    kept = [item for item in items if item in row_of]
    return ItemVectors(kept, np.ascontiguousarray(given.values[[row_of[item] for item in kept]]))


def merged(old: ItemVectors | None, new: ItemVectors | None) -> ItemVectors | None:
    """Returns the vectors of both; where both have one of an item, the new one.

    Raises:
        DataError: They have different numbers of dimensions.
    """
    if old is None or new is None:
        return old or new
    if old.dim != new.dim:
        raise DataError(
            f"the vectors of the old data have {old.dim} dimensions, those of the new data {new.dim}",
            fix="import both with vectors of one kind",
        )
    row_of = {item: row for row, item in enumerate([*old.item_ids, *new.item_ids])}
    both = np.concatenate([old.values, new.values])
    return ItemVectors(list(row_of), both[list(row_of.values())])
