"""Held-out items as a service would get them between two trainings: described by the items their texts are like.

The model has never seen a text. It serves the live catalogue that `service.catalogue.updates` makes of those
descriptions, with the same code that follows the file of updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from model.data.dataset import Dataset
from model.data.dataset import Sequences as Log
from model.evaluation.evaluate import Histories, Ranker
from model.evaluation.rankers import engine_ranker
from model.texts.new_items import describe_new_items
from service.artifact.array_types import IntArray
from service.catalogue.assembly import assemble, build
from service.catalogue.placing import Likeness
from service.catalogue.updates_file import parse
from service.engine.decoding import Decoding
from service.engine.engine import Engine

# The export knows the held-out items by their ids; as new items they have others.
_AS_NEW = "new:"


def describe(
    engine: Engine, dataset: Dataset, reduced: Dataset, train: Log, items: Sequence[str], data: Path
) -> IntArray:
    """Serves `items` as new ones from now on; `train` is the data the model was trained on.

    Returns:
        [catalogue] the item that each index of the engine's lists stands for: for a new item, the held-out item it
        describes.
    """
    exported = engine.artifact
    rows = dataset.items.filter(pl.col("item_id").is_in(list(items)))
    new = rows.with_columns(pl.concat_str(pl.lit(_AS_NEW), "item_id").alias("item_id"))
    found = describe_new_items(reduced, train, new, data)
    content = b"\n".join(orjson.dumps(line) for line in found.lines)
    updates = parse(content + b"\n", exported.catalogue)
    likeness = Likeness(exported)
    built = build(exported, updates.new, likeness)
    updates = replace(updates, out_of_stock=frozenset(items))
    engine.update(assemble(exported, built, updates, likeness))
    index = exported.catalogue.index
    meant = [index[item_id.removeprefix(_AS_NEW)] for item_id in updates.new]
    return np.concatenate([np.arange(exported.catalogue.first_new), np.array(meant, np.int64)])


def live_ranker(engine: Engine, decoding: Decoding, meant: IntArray, *, signals: bool = True) -> Ranker:
    """Lists of the engine, in the indices of the log, with or without signals; `meant` as `describe` returns it."""
    ranked = engine_ranker(engine, decoding, signals=signals)

    def rank(histories: Histories) -> IntArray:
        lists = ranked(histories)
        return np.where(lists < 0, lists, meant[lists])

    return rank
