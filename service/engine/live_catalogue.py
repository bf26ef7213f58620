"""A catalogue that changes while a model is served, as the engine takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.artifact.artifact import Artifact
from service.engine.decode.delta_table import DeltaTable


@dataclass(frozen=True, slots=True, eq=False)
class LiveCatalogue:
    """What is served from now on: the artefact's parts with stock and new items in them, the new items that no trie
    holds yet, and for every new item the exported one it is most like."""

    artifact: Artifact
    delta: DeltaTable | None = None
    stand_in: Mapping[int, int] = field(default_factory=dict)
