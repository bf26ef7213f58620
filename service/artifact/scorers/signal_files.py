"""The files of signals: one for each, by its name, of one of four kinds.

The service reads the kind from the file, so a new signal of a known kind needs no change here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from service.artifact.arrays import ArrayFileError, map_arrays
from service.artifact.scorers import item_column, neighbour_table, own_items, popularity
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.scorer_files import ScorerFileError

SignalPart = NeighbourTable | OwnItems | ItemColumn | Popularity

# Two signals make lists below the model as well, so every artefact has them.
ITEM_CF, POPULARITY = "item_cf", "popularity"
# 1 for items without events whose content tells which items they are like.
COLD = "cold"

_KINDS: Mapping[str, Callable[[Path], SignalPart]] = {
    neighbour_table.KIND: lambda path: NeighbourTable.load(path, check_values=False),
    own_items.KIND: OwnItems.load,
    item_column.KIND: ItemColumn.load,
    popularity.KIND: lambda path: Popularity.load(path, check_values=False),
}


def signal_file(name: str) -> str:
    """Returns the name of a signal's file."""
    return f"signal_{name}.npz"


def load_signal(path: Path) -> SignalPart:
    """Maps the file of a signal of any kind.

    The checksum of the file vouches for the values of large arrays.

    Raises:
        ScorerFileError: The file is damaged, or of a kind or format that this version does not read.
        OSError: The file cannot be read.
    """
    try:
        kind = str(map_arrays(path).get("kind"))
    except ArrayFileError as error:
        raise ScorerFileError(str(error)) from error
    if kind not in _KINDS:
        raise ScorerFileError(
            f"{path.name} holds a signal of the kind {kind!r}, this version reads {', '.join(_KINDS)}; "
            "update the service, or export the model again with this version"
        )
    return _KINDS[kind](path)
