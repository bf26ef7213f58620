"""Files of scorers and signals: named arrays of a kind and a format.

Files are mapped: a scorer of a million items is ready at once and shares its pages between processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from service.artifact.arrays import ArrayFileError, map_arrays, save_arrays

FORMAT_VERSION = 3

# Type and number of dimensions of an array.
Shape = tuple[type[np.generic], int]


class ScorerFileError(ValueError):
    """The file was not written by a scorer's `save`: it is damaged, of another format, or has values out of range."""


def require(holds: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not holds:
        raise ValueError(message)


def save_scorer(path: Path, kind: str, **arrays: Any) -> None:
    """Writes the arrays of a scorer of this kind."""
    save_arrays(path, format=np.int64(FORMAT_VERSION), kind=np.str_(kind), **arrays)


def load_scorer(
    path: Path, kind: str, expected: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None
) -> dict[str, Any]:
    """Maps the arrays of a scorer of this kind.

    Args:
        path: The file.
        kind: The kind that `save_scorer` was given.
        expected: Type and number of dimensions of each array.
        optional: The same of arrays that may be missing.

    Raises:
        ScorerFileError: The file is damaged, of another kind or format, or has other arrays.
    """
    try:
        arrays = map_arrays(path)
    except ArrayFileError as error:
        raise ScorerFileError(str(error)) from error
    if str(arrays.get("kind")) != kind:
        raise ScorerFileError(f"{path.name} does not hold {kind} arrays")
    if str(arrays.get("format")) != str(FORMAT_VERSION):
        raise ScorerFileError(f"{path.name} has a format that this version does not read; export the model again")
    expected = {**expected, **{name: shape for name, shape in (optional or {}).items() if name in arrays}}
    if set(arrays) != {"kind", "format", *expected}:
        raise ScorerFileError(
            f"{path.name} holds the arrays {sorted(arrays)}, not {sorted(('kind', 'format', *expected))}"
        )
    for name, (dtype, ndim) in expected.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != ndim:
            wrong = f"{arrays[name].dtype} with {arrays[name].ndim} axes"
            raise ScorerFileError(f"{path.name}: {name} is {wrong}, not {np.dtype(dtype)} with {ndim}")
    return arrays
