"""A catalogue that has changed while a model is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.artifact.artifact import Artifact
from service.engine.decode.delta_table import DeltaTable


@dataclass(frozen=True, slots=True, eq=False)
class LiveCatalogue:
    """What the engine serves from now on.

    Attributes:
        artifact: The artefact's parts, with the present stock and new items.
        delta: The new items that no trie holds yet, if there are any.
        stand_in: The exported item that each new item is most like, by catalogue index.
        placed_by: What gave each new item its place, by catalogue index.
    """

    artifact: Artifact
    delta: DeltaTable | None = None
    stand_in: Mapping[int, int] = field(default_factory=dict)
    placed_by: Mapping[int, str] = field(default_factory=dict)
