"""The attributes of items in training: which are learned, what a run and its increments keep, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from export.from_run import parts_of
from model.data.dataset import ITEM_SCHEMA, Dataset, sequences
from model.data.errors import DataError
from model.errors import ConfigError
from model.evaluation.baselines import Baselines, ItemCFConfig, fit_item_cf
from model.training.config import TrainConfig
from model.training.increment.settings import IncrementSettings
from model.training.increment.trainer import memory_of
from model.training.item_attributes import attribute_rows, fit_attributes, names_of
from model.training.run_folder import Run
from service.artifact.artifact import Artifact
from service.artifact.items.item_attributes import AttributeVocabulary
from service.artifact.scorers.popularity import Popularity
from tests.support.artifacts import write_artifact
from tests.support.data_builders import tiny_dataset
from tests.support.increments import NEW_ITEMS, SETTINGS, grown

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_names_are_in_the_order_of_the_slots_and_those_of_items_with_events_are_learned() -> None:
    plain = tiny_dataset(users=10)
    odd = pl.when(pl.col("item_id") == "i3").then(pl.lit("odd")).otherwise("brand")
    events = plain.events.filter(pl.col("item_id") != "i3")
    dataset = replace(plain, events=events, items=plain.items.with_columns(brand=odd))
    log = sequences(dataset)
    of_item = dict(zip(log.item_ids, names_of(dataset, log), strict=True))
    assert of_item["i4"] == [
        "category:dept0", "category:group4", "brand:brand0", "price:lowest", "attribute:a1", "attribute:b4",
    ]  # fmt: skip
    vocabulary = fit_attributes(dataset, log, 3)
    assert vocabulary is not None and "brand:odd" not in vocabulary.names
    rows = attribute_rows(vocabulary, dataset, log)
    assert rows is not None
    read = {item: [vocabulary.names[row - 1] for row in rows[n]] for n, item in enumerate(log.item_ids)}
    assert read["i4"] == of_item["i4"][:3]
    assert read["i3"] == ["category:dept1", "category:group3", "price:lowest"], "without the brand that is unknown"
    assert AttributeVocabulary.from_json(vocabulary.to_json()) == vocabulary
    assert fit_attributes(dataset, log, 0) is None and attribute_rows(None, dataset, log) is None


def test_data_without_attributes_and_other_encoders_are_refused() -> None:
    dataset = tiny_dataset(users=10)
    ids = {"item_id": dataset.items["item_id"]}
    empty = {name: [None] * len(dataset.items) for name in ITEM_SCHEMA if name != "item_id"}
    bare = replace(dataset, items=pl.DataFrame({**ids, **empty}, schema=ITEM_SCHEMA))
    with pytest.raises(DataError, match=r"network\.attribute_slots needs items with a category"):
        fit_attributes(bare, sequences(bare), 3)
    with pytest.raises(ConfigError, match=r"network\.attribute_slots has no effect with the encoder sasrec"):
        TrainConfig.build(None, ["encoder=sasrec", "network.attribute_slots=4"])


def test_a_run_learns_attributes_with_negatives_and_its_increment_and_artefacts_keep_them(tmp_path: Path) -> None:
    network = {"dropout": 0.1, "attribute_slots": 3}
    settings = {**SETTINGS, "encoder": "encoder_decoder", "negatives": 8, "max_epochs": 1, "network": network}
    made = grown(tmp_path / "made", 20, settings)
    run = Run.open(made.run)
    before = run.model().attributes
    assert before is not None and run.attributes is not None and before.value.num_embeddings == run.attributes.n_rows
    assert bool((before.rows[:, 0] > 0).all()), "cold items included"

    trainer = made.trainer(tmp_path / "next", IncrementSettings(keep_encoder=True, strength=0.01), "max_epochs=1")
    trainer.fit()
    memory_of(trainer, trainer.start.data.dataset, trainer.start.data.path).save(tmp_path / "next")
    later, n_old = Run.open(tmp_path / "next"), trainer.start.n_old
    after = later.model().attributes
    assert after is not None and later.attributes == run.attributes
    assert torch.equal(after.rows[:n_old], before.rows) and torch.equal(after.value.weight, before.value.weight)
    assert after.rows.shape[0] == n_old + len(NEW_ITEMS) and bool((after.rows[n_old:, 0] > 0).all())

    old, new = written(made.run, tmp_path / "old"), written(tmp_path / "next", tmp_path / "new")
    assert new.item_attributes is not None
    assert np.array_equal(new.item_attributes[:-2], after.rows.numpy()) and not new.item_attributes[-2:].any()
    assert old.encoder_version.name == new.encoder_version.name, "old histories have the same states"


def written(folder: Path, out: Path) -> Artifact:
    """The artefact of a run, without weights of signals and without the parity gate."""
    run = Run.open(folder)
    dataset = Dataset.load(run.data_path())
    split, config = run.split(dataset), ItemCFConfig("cosine", 20, 0.8)
    popularity = Popularity.fit(split.train.item, split.train.n_items)
    baselines = Baselines(fit_item_cf(split.train, config), popularity, config, ())
    return Artifact.open(write_artifact(out, parts_of(run, dataset, split, baselines)))
