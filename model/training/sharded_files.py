"""Tensors in several files with an index: each process writes its rows, and any number of processes reads them.

    NAME.index.json                              format, metadata, and in which files the rows of each tensor are
    NAME-<step>-<number>-of-<n>*.safetensors     what one process has written

The index is renamed into place when all files are written, and names them; files of an earlier step are removed
afterwards. A reader therefore finds all of a step or all of the one before, whenever a process is killed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.errors import RunError
from service.common.atomic_files import replacing, write_aside

FORMAT = 1


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor that one process has.

    Attributes:
        values: [high − low, …] the rows.
        low: The first of them.
        n: Rows of the whole tensor.
    """

    values: Tensor
    low: int
    n: int


def index_of(folder: Path, name: str) -> Path:
    """Returns the path of an index."""
    return folder / f"{name}.index.json"


def write_shard(
    folder: Path, name: str, step: int, part: tuple[int, int], tensors: Mapping[str, Tensor | Rows]
) -> dict[str, list[Any]]:
    """Writes the files of one process: one for each tensor of which it has rows, as writing copies what a file holds.

    Args:
        folder: Where to.
        name: What is written, such as "checkpoint".
        step: The step of the training.
        part: (number of the process, how many there are).
        tensors: Whole tensors, and rows of those that other processes have as well.

    Returns:
        The entries of the index: tensor → [file, first row, row after the last, rows of the whole tensor].
    """
    stem = f"{name}-{step:08d}-{part[0]:05d}-of-{part[1]:05d}"
    small, entries = {}, {}
    for key, given in tensors.items():
        if isinstance(given, Rows):
            file = f"{stem}-{key}.safetensors"
            entries[key] = [file, given.low, given.low + len(given.values), given.n]
            _write(folder / file, {key: given.values})
        else:
            n = len(given) if given.ndim else 1
            entries[key] = [f"{stem}.safetensors", 0, n, n]
            small[key] = given
    if small:
        _write(folder / f"{stem}.safetensors", small)
    return entries


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    with replacing(file) as aside:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, aside)


def write_index(folder: Path, name: str, shards: Sequence[Mapping[str, list[Any]]], meta: Mapping[str, Any]) -> None:
    """Writes the index of what all processes have written, and removes the files of earlier steps.

    Args:
        folder: Where to.
        name: What is written.
        shards: What `write_shard` returned in each process.
        meta: Metadata that JSON can hold.
    """
    tensors: dict[str, list[list[Any]]] = {}
    for shard in shards:
        for key, entry in shard.items():
            tensors.setdefault(key, []).append(entry)
    index = {"format": FORMAT, "meta": dict(meta), "tensors": tensors}
    write_aside(index_of(folder, name), json.dumps(index, indent=1).encode())
    kept = {entry[0] for entries in tensors.values() for entry in entries}
    for file in folder.glob(f"{name}-*-of-*.safetensors"):
        if file.name not in kept:
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Shards:
    """Tensors in several files, opened for reading.

    Attributes:
        folder: Where they are.
        meta: The metadata.
        tensors: Tensor → its entries in the index.
    """

    folder: Path
    meta: Mapping[str, Any]
    tensors: Mapping[str, Sequence[Sequence[Any]]]

    @classmethod
    def open(cls, folder: Path, name: str) -> Self:
        """Opens what `write_index` completed.

        Raises:
            RunError: There is none, it is damaged, or it has another format.
        """
        path = index_of(folder, name)
        try:
            index = json.loads(path.read_text("utf-8"))
            if index["format"] != FORMAT:
                raise RunError(
                    f"{path.name} has format {index['format']}, this version reads {FORMAT}",
                    where=str(path),
                    fix="train again with this version",
                )
            return cls(folder, index["meta"], index["tensors"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunError(
                f"{path.name} cannot be read: {error}", where=str(path), fix="train again without --resume"
            ) from error

    def rows(self, key: str, low: int = 0, high: int | None = None) -> Tensor:
        """Returns rows of a tensor, reading no others.

        Args:
            key: Name of the tensor.
            low: The first row.
            high: The row after the last one; None: to the end.

        Raises:
            RunError: A file is missing or damaged, or rows are in none of them.
        """
        found, at = [], low
        try:
            entries = sorted(self.tensors[key], key=lambda entry: int(entry[1]))
            end = int(entries[0][3]) if high is None else high
            for file, first, last, _ in entries:
                if first <= at < min(last, end):
                    with safe_open(self.folder / file, framework="pt") as shard:
                        part = shard.get_slice(key)
                        values = (
                            part[at - first : min(last, end) - first] if part.get_shape() else shard.get_tensor(key)
                        )
                    found.append(values)
                    at = min(last, end)
            if at < end:
                raise RunError(f"rows {at} to {end} of {key} are in no file", where=str(self.folder), fix="train again")
            return found[0] if len(found) == 1 else torch.cat(found) if found else self._none(key)
        except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
            raise RunError(
                f"{key} cannot be read: {error}", where=str(self.folder), fix="train again without --resume"
            ) from error

    def whole(self) -> dict[str, Tensor]:
        """Returns all tensors, as one process needs them.

        Raises:
            RunError: See `rows`.
        """
        return {key: self.rows(key) for key in self.tensors}

    def _none(self, key: str) -> Tensor:
        with safe_open(self.folder / self.tensors[key][0][0], framework="pt") as shard:
            return shard.get_slice(key)[0:0]  # type: ignore[no-any-return]
