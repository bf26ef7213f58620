"""New items beside those that their texts are like, for the file of catalogue updates that a service follows.

Between two trainings an item that comes new has neither an embedding nor a path. A service gives it the mean embedding
and a path beside the items in its `like` (`service/catalogue/updates.py`); here they are found by its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from model.data.dataset import Dataset, Sequences
from model.texts.sentence_vectors import TextError, item_vectors, text_of, texts_of

NEIGHBOURS = 5
_TEXTS = ("item_id", "title", "brand", "text")
_DESCRIBES = ("title", "category", "brand", "attributes")


@dataclass(frozen=True, slots=True)
class Likened:
    """`lines` for the file of updates, and ids that got none: items the data set knows, and items without text."""

    lines: Sequence[dict[str, Any]]
    known: Sequence[str]
    without_text: Sequence[str]


def likened(dataset: Dataset, train: Sequences, new: pl.DataFrame, data: Path, neighbours: int = NEIGHBOURS) -> Likened:
    """A line for each item of `new` (an `item_id`, and what `model.data.dataset.ITEM_SCHEMA` has besides): what it is, and in
    `like` the `neighbours` items with events in `train` whose texts are nearest, by the cosine of their sentence
    vectors. Of an item without any the model has learned nothing, so its embedding is nobody's to take.

    `data` is the data set's folder, where sentence vectors are kept. Raises TextError without the sentence encoder, and
    where no item that was trained on has a text.
    """
    used = [train.item_ids[item] for item in np.unique(train.item)]
    vectors = texts_of(dataset, used, data)
    told = np.flatnonzero(vectors.any(axis=1))
    if not len(told):
        raise TextError(f"no item of {dataset.name} that was trained on has a text or a title")
    ids, vectors = [used[at] for at in told.tolist()], vectors[told]

    known = set(dataset.items["item_id"])
    named = new.with_columns(pl.col(name).cast(pl.String) for name in _TEXTS if name in new.columns)
    named = named.filter(pl.col("item_id").str.len_chars() > 0)
    rows = named.unique("item_id", keep="last", maintain_order=True).to_dicts()
    texts = {row["item_id"]: text_of(row.get("text"), row.get("title")) for row in rows}
    fresh = [row for row in rows if row["item_id"] not in known and texts[row["item_id"]]]
    alike = item_vectors([texts[row["item_id"]] for row in fresh]) @ vectors.T if fresh else np.zeros((0, len(ids)))
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :neighbours]
    return Likened(
        [_line(row, [ids[at] for at in places]) for row, places in zip(fresh, nearest.tolist(), strict=True)],
        [item for item in texts if item in known],
        [item for item, text in texts.items() if item not in known and not text],
    )


def _line(row: dict[str, Any], like: list[str]) -> dict[str, Any]:
    described = {name: row[name] for name in _DESCRIBES if row.get(name)}
    return {"item_id": row["item_id"], **described, "like": like}
