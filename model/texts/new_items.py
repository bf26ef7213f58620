"""Finds the known items that new items resemble, for the file of catalogue updates that a service follows.

An item that arrives between two trainings has neither an embedding nor a token path. A service gives it the mean
embedding of the items in its `like`, and a path near theirs (`service/catalogue/updates.py`). This module finds those
items by text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from model.data.dataset import Dataset, Sequences
from model.texts.sentence_vectors import TextError, item_text, item_text_vectors, item_vectors
from service.artifact.array_types import FloatArray

NEIGHBOURS = 5
_TEXTS = ("item_id", "title", "brand", "text")
_DESCRIBES = ("title", "category", "brand", "attributes")


@dataclass(frozen=True, slots=True)
class NewItemLines:
    """The result of `describe_new_items`.

    Attributes:
        lines: A JSON object for each new item, for the file of catalogue updates.
        known: Ids without a line because the data set already has them.
        without_text: Ids without a line because they have neither a text nor a title.
    """

    lines: Sequence[dict[str, Any]]
    known: Sequence[str]
    without_text: Sequence[str]


def describe_new_items(
    dataset: Dataset, train: Sequences, new: pl.DataFrame, data: Path, neighbours: int = NEIGHBOURS
) -> NewItemLines:
    """Describes each new item and lists in `like` the trained items with the nearest texts.

    Nearest is the cosine of the sentence vectors. Items without an event in `train` are never listed: the model has
    learned nothing about them, so their embeddings are of no use to a new item.

    Args:
        dataset: The data set of the run.
        train: The training part of its log.
        new: The new items: `item_id`, and other columns of `model.data.dataset.ITEM_SCHEMA`.
        data: The folder of the data set, which keeps sentence vectors.
        neighbours: The number of items in `like`.

    Raises:
        TextError: The sentence encoder is not installed, or no item that was trained on has a text or a title.
    """
    ids, vectors = _trained_items(dataset, train, data)
    known = set(dataset.items["item_id"])
    as_text = new.with_columns(pl.col(name).cast(pl.String) for name in _TEXTS if name in new.columns)
    with_id = as_text.filter(pl.col("item_id").str.len_chars() > 0)
    rows = with_id.unique("item_id", keep="last", maintain_order=True).to_dicts()
    texts = {row["item_id"]: item_text(row.get("text"), row.get("title")) for row in rows}
    fresh = [row for row in rows if row["item_id"] not in known and texts[row["item_id"]]]
    cosine = item_vectors([texts[row["item_id"]] for row in fresh]) @ vectors.T if fresh else np.zeros((0, len(ids)))
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :neighbours]
    return NewItemLines(
        [_line(row, [ids[i] for i in neighbour]) for row, neighbour in zip(fresh, nearest.tolist(), strict=True)],
        [item for item in texts if item in known],
        [item for item, text in texts.items() if item not in known and not text],
    )


def _trained_items(dataset: Dataset, train: Sequences, data: Path) -> tuple[list[str], FloatArray]:
    """Ids and sentence vectors [items, 384] of the items with a training event and a text."""
    used = [train.item_ids[item] for item in np.unique(train.item)]
    vectors = item_text_vectors(dataset, used, data)
    with_text = np.flatnonzero(vectors.any(axis=1))
    if not len(with_text):
        raise TextError(
            f"no item of {dataset.name} that was trained on has a text or a title",
            where=f"the item table of {data}",
            fix="import the data with a complete item table, and train again",
        )
    return [used[i] for i in with_text.tolist()], vectors[with_text]


def _line(row: dict[str, Any], like: list[str]) -> dict[str, Any]:
    described = {name: row[name] for name in _DESCRIBES if row.get(name)}
    return {"item_id": row["item_id"], **described, "like": like}
