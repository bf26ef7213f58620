"""Item ids for load."""

from __future__ import annotations

from pathlib import Path


def read_items(catalogue: Path) -> list[str]:
    """Returns the item ids of an artefact, or of a file with one id per line."""
    if catalogue.is_dir():
        from service.artifact.artifact import Artifact

        return list(Artifact.open(catalogue).catalogue.item_ids)
    return [line for line in catalogue.read_text(encoding="utf-8").split("\n") if line]
