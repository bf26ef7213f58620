"""A training that reads item texts, without the encoder's package: sentence vectors come from a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch

from model.data.dataset import Dataset
from model.errors import ConfigError
from model.texts import sentence_vectors
from model.texts.sentence_vectors import TextError
from model.training.config import TrainConfig
from model.training.reports import Tick
from model.training.run_folder import BEST, CHECKPOINT, load_tensors
from model.training.trainer import Trainer
from tests.support.data_builders import tiny_dataset

SETTINGS: dict[str, Any] = {
    "size": "tiny", "batch_tokens": 200, "max_epochs": 3, "max_length": 16, "text": "items",
}  # fmt: skip
UNSEEN, UNSEEN_WITHOUT_TEXT = "i3", "i7"
Vectors = npt.NDArray[np.float32]


@pytest.fixture
def dataset() -> Dataset:
    plain = tiny_dataset(users=60)
    title = pl.when(pl.col("item_id") != UNSEEN_WITHOUT_TEXT).then(pl.col("item_id"))
    events = plain.events.filter(~pl.col("item_id").is_in([UNSEEN, UNSEEN_WITHOUT_TEXT]))
    items = plain.items.with_columns(title=title, text=pl.lit("  "))
    return Dataset.of("tiny", events, items, plain.users, has_time=True, category_kind="path")


def read_by_table(texts: Sequence[str], cache: Path | None = None) -> Vectors:
    """A direction for each title, nothing without one."""
    directions = np.random.default_rng(0).normal(size=(30, sentence_vectors.DIM)).astype(np.float32)
    return np.stack(
        [directions[int(title[1:])] if title else np.zeros(sentence_vectors.DIM, np.float32) for title in texts]
    )


def refused(texts: Sequence[str], cache: Path | None = None) -> Vectors:
    raise TextError("the encoder was asked for")


@pytest.mark.parametrize("negatives", [0, 8], ids=["full", "sampled"])
def test_it_goes_on_bit_for_bit_without_the_encoder(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, negatives: int
) -> None:
    settings = TrainConfig(**SETTINGS, negatives=negatives)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(sentence_vectors, "item_vectors", read_by_table)
    Trainer(dataset, Path("data"), tmp_path / "whole", settings).fit()

    def interrupt(tick: Tick) -> None:
        if (tick.epoch, tick.done) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(dataset, Path("data"), tmp_path / "half", settings).fit(report=interrupt)
    monkeypatch.setattr(sentence_vectors, "item_vectors", refused)
    Trainer(dataset, Path("data"), tmp_path / "half", settings, resume=True).fit()
    for file in (CHECKPOINT, BEST):
        whole, half = (load_tensors(tmp_path / name / file)[0] for name in ("whole", "half"))
        assert whole.keys() == half.keys()
        assert [name for name in whole if not torch.equal(whole[name], half[name])] == []


def test_only_what_has_content_is_spared_by_the_loss(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentence_vectors, "item_vectors", read_by_table)
    trainer = Trainer(dataset, Path("data"), tmp_path / "run", TrainConfig(**SETTINGS))
    drawn = dict(zip(trainer.split.train.item_ids, torch.isfinite(trainer.log_q).tolist(), strict=True))
    assert [item for item, may_be in drawn.items() if not may_be] == [UNSEEN]


@pytest.mark.parametrize("tokenizer", ["atomic", "hierarchical"])
def test_codes_that_content_does_not_place_cannot_be_placed_by_texts(tokenizer: str) -> None:
    with pytest.raises(ConfigError, match="choose tokenizer semantic, or text items"):
        TrainConfig(text="codes", tokenizer=tokenizer)  # type: ignore[arg-type]


def test_blank_texts_hide_no_title() -> None:
    assert sentence_vectors.item_text("  ", " Pens ") == "Pens"
    assert sentence_vectors.item_text("Blue", "Pens") == "Blue"
    assert sentence_vectors.item_text(None, None) == ""
