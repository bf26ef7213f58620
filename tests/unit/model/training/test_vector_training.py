"""A training that uses vectors that came with the data: in tokens, in embeddings, and as a signal of the ranker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from model.data.dataset import Dataset, sequences
from model.data.split import leave_one_out
from model.data.vectors import ItemVectors
from model.errors import ConfigError, RunError
from model.evaluation.baselines import ItemCFConfig, fit_item_cf
from model.signals.data import SignalData
from model.signals.registry import fit_signals
from model.texts import sentence_vectors
from model.tokenizers.semantic import SemanticTokenizer
from model.training.config import TrainConfig
from model.training.content_vectors import content_vectors
from model.training.run_folder import Run
from model.training.trainer import Trainer
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.popularity import Popularity
from tests.support.data_builders import tiny_dataset

SETTINGS: dict[str, Any] = {"size": "tiny", "batch_tokens": 200, "max_epochs": 1, "max_length": 16}
UNSEEN, BARE, DIM = "i3", "i7", 6


@pytest.fixture
def dataset() -> Dataset:
    """Vectors that name the group of an item; one item has none, one has no event."""
    plain = tiny_dataset(users=40)
    ids = [item for item in plain.items["item_id"] if item != BARE]
    group = np.array([int(item[1:]) % DIM for item in ids])
    values = np.eye(DIM, dtype=np.float32)[group] + np.random.default_rng(0).normal(0, 0.1, (len(ids), DIM))
    events = plain.events.filter(pl.col("item_id") != UNSEEN)
    return Dataset.of(
        "tiny", events, plain.items, plain.users, has_time=True, category_kind="path",
        vectors=ItemVectors(ids, values.astype(np.float32)),
    )  # fmt: skip


def test_they_are_mixed_into_the_embeddings_and_place_items(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(dataset, Path("data"), tmp_path, TrainConfig(**SETTINGS, vectors="items"))
    gate, ids = trainer.model.of_content, trainer.split.train.item_ids
    assert gate is not None and dataset.vectors is not None
    assert gate.vectors.numpy() == pytest.approx(dataset.vectors.of(ids))
    assert [ids[i] for i in torch.nonzero(gate.unseen_with_content).flatten().tolist()] == [UNSEEN]
    trainer.fit()
    again = Run.open(tmp_path)
    assert again.network.content == DIM
    assert isinstance(again.tokenizer, SemanticTokenizer) and again.tokenizer.content.text is not None
    assert len(again.tokenizer.content.text) == DIM
    assert again.model().of_content is not None


def test_codes_alone_leave_the_embeddings_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(dataset, Path("data"), tmp_path, TrainConfig(**SETTINGS, vectors="codes"))
    assert trainer.model.of_content is None
    assert isinstance(trainer.tokenizer, SemanticTokenizer) and trainer.tokenizer.content.text is not None


def test_texts_and_vectors_stand_side_by_side(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(texts: list[str], cache: Path | None = None) -> Any:
        return np.eye(len(texts), sentence_vectors.DIM, dtype=np.float32)

    monkeypatch.setattr(sentence_vectors, "item_vectors", fake)
    ids = dataset.items["item_id"].to_list()
    both = content_vectors(TrainConfig(text="codes", vectors="items"), dataset, ids, Path("data"))
    assert both.all is not None and both.in_items is not None
    assert both.all.shape[1] == sentence_vectors.DIM + DIM
    assert both.in_items.shape[1] == DIM
    none = content_vectors(TrainConfig(), dataset, ids, Path("data"))
    assert none.all is None and none.in_items is None


def test_their_signal_holds_the_nearest_items_and_they_say_what_stands_in_for_cold_ones(dataset: Dataset) -> None:
    train = leave_one_out(sequences(dataset)).train
    assert dataset.vectors is not None
    given = dataset.vectors.of(train.item_ids)
    data = SignalData(
        train, dataset, fit_item_cf(train, ItemCFConfig("cosine", 20, 0.8)), Popularity.fit(train.item, train.n_items),
        vectors=given,
    )  # fmt: skip
    signals = fit_signals(data)
    assert list(signals).index("vectors") < list(signals).index("repeat") and "texts" not in signals
    table = signals["vectors"]
    assert isinstance(table, NeighbourTable)
    for item in range(train.n_items):
        cosine = given @ given[item]
        cosine[item] = 0
        assert table.similarity[item].max(initial=0) == pytest.approx(max(cosine.max(), 0), abs=1e-6)
        if given[item].any():
            assert cosine[table.neighbour[item, 0]] == pytest.approx(cosine.max(), abs=1e-6)
    assert [train.item_ids[item] for item in data.cold.items.tolist()] == [UNSEEN]
    stand_in = np.argsort(-data.cold.by_item.toarray()[0])[:3]
    group = {int(train.item_ids[item][1:]) % DIM for item in stand_in.tolist()}
    assert group == {int(UNSEEN[1:]) % DIM}


def test_vectors_that_are_not_there_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    bare = replace(dataset, vectors=None)
    with pytest.raises(RunError, match="came without vectors of items"):
        Trainer(bare, Path("data"), tmp_path, TrainConfig(**SETTINGS, vectors="items"))
    with pytest.raises(ConfigError, match="choose tokenizer semantic, or vectors items"):
        TrainConfig(vectors="codes", tokenizer="atomic")
