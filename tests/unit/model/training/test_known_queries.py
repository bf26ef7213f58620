"""Frequent queries get sentence vectors in training, and the run, its increments and its artefact know them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from model.data.dataset import Dataset, sequences
from model.errors import ConfigError
from model.network.config import NetworkConfig
from model.network.query_vectors import SENTENCE_DIM, QueryVectors
from model.texts import sentence_vectors
from model.texts.sentence_vectors import DIM
from model.training.config import TrainConfig
from model.training.known_queries import frequent_queries
from model.training.run_folder import Run
from model.training.trainer import Trainer
from service.artifact.array_types import FloatArray
from service.artifact.query_text import words_of
from tests.support.data_builders import tiny_dataset

ASKED = ("green tea", "Green  TEA!", "lamp", "red shoes", "?!")
SETTINGS: dict[str, Any] = {
    "encoder": "behaviours",
    "size": "tiny",
    "max_epochs": 1,
    "max_length": 16,
    "validation_users": 10,
    "network": {"query_buckets": 32, "query_vectors": 2},
}


def searched(users: int = 30) -> Dataset:
    """A log in which everybody searched at most moments, also after the last event."""
    dataset = tiny_dataset(users=users)
    rng = np.random.default_rng(0)
    rows = [(user, at + 1000, ASKED[rng.integers(len(ASKED))]) for user, at in
            dataset.events.select("user_id", "timestamp").sort("timestamp").iter_rows()]  # fmt: skip
    table = pl.DataFrame(rows, schema=["user_id", "timestamp", "query"], orient="row").sort("timestamp")
    return replace(dataset, searches=table)


def test_the_most_frequent_queries_of_the_training_part_are_known_each_by_its_words() -> None:
    dataset = searched()
    log = sequences(dataset)
    assert dataset.searches is not None
    counts: Counter[str] = Counter()
    for user, rows in dataset.searches.group_by("user_id"):
        last = int(dataset.events.filter(pl.col("user_id") == user[0])["timestamp"].max())  # type: ignore[arg-type]
        counts.update(" ".join(words_of(q)) for _, t, q in rows.iter_rows() if t <= last)
    del counts[""]
    wanted = sorted(counts, key=lambda query: (-counts[query], query))
    assert wanted[0] == "green tea" and set(wanted) == {"green tea", "lamp", "red shoes"}
    assert [frequent_queries(log, log.searches, most) for most in (0, 2, 9)] == [[], wanted[:2], wanted]
    assert frequent_queries(log, None, 9) == []


def test_a_training_makes_the_vectors_once_and_what_it_leaves_behind_knows_the_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []

    def told(texts: Sequence[str], *_: Any, **__: Any) -> FloatArray:
        made.append(list(texts))
        return np.eye(len(texts), DIM, dtype=np.float32)

    monkeypatch.setattr(sentence_vectors, "item_vectors", told)
    dataset = searched()
    trainer = Trainer(dataset, tmp_path / "data", tmp_path / "run", TrainConfig(**SETTINGS))
    batch = next(trainer.plan.batches(0, trainer.network.n_items + 1))
    assert batch.query is not None and int(batch.query.max()) == 32 + 2, (
        "numbers of known queries are behind the buckets"
    )
    trainer.fit()
    run = Run.open(tmp_path / "run")
    known = run.vocabulary(["a"]).known_queries
    assert known is not None and [known.number(query) for query in (*made[0], "unheard of")] == [1, 2, 0]
    vectors = run.model().known_query
    assert vectors is not None and (vectors.vectors.numpy() == np.eye(2, DIM)).all(), "they are not trained"
    again = Trainer(dataset, tmp_path / "data", tmp_path / "run", TrainConfig(**SETTINGS), resume=True)
    assert again.vocabulary.known_queries is not None
    assert (again.vocabulary.known_queries.digests == known.digests).all()
    assert len(made) == 1, "a resumed run has the vectors in its weights"
    (tmp_path / "run" / "queries.npz").write_bytes(b"damaged")
    with pytest.raises(Exception, match=r"not a training run.*queries\.npz"):
        Run.open(tmp_path / "run")


def test_vectors_stand_beside_n_grams_and_training_forgets_some_of_them() -> None:
    with pytest.raises(ConfigError, match=r"network\.query_buckets"):
        TrainConfig(encoder="behaviours", network={"query_vectors": 10})
    assert SENTENCE_DIM == DIM
    config = NetworkConfig(3, (3,), 7, 1, 1, query_buckets=8, n_known_queries=2)
    vectors = QueryVectors(config)
    numbers = torch.tensor([[10, 3, 0], [0, 3, 8]]).repeat(200, 1)
    assert torch.equal(vectors.eval().forgotten(numbers), numbers)
    torch.manual_seed(0)
    seen = vectors.train().forgotten(numbers)
    assert torch.equal(seen[:, 1:], numbers[:, 1:]), "n-grams stay"
    assert 0 < int((seen[:, 0] == 10).sum()) < 200
