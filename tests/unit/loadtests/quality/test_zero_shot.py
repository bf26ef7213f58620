"""The command that asks about a strange catalogue: both criteria get a row, and the strange log is not learned from."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.quality import zero_shot
from loadtests.quality.zero_shot import standardised, trained, values_of
from model.data.dataset import Dataset
from model.network.prompted import PromptedHead
from model.texts import sentence_vectors
from model.training.prompted import Question
from service.artifact.array_types import FloatArray
from tests.support.data_builders import tiny_dataset

DIM = 64


def words(texts: Sequence[str], cache: Path | None = None, *, tokens: int = 0) -> FloatArray:
    """A frozen encoder: hashed words."""
    out = np.zeros((len(texts), DIM), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            out[row, zlib.crc32(word.encode()) % DIM] += 1
    unit: FloatArray = out / np.linalg.norm(out, axis=1, keepdims=True).clip(1e-9)
    return unit


def test_both_criteria_get_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_vectors, "item_vectors", words)
    monkeypatch.setattr(zero_shot, "item_vectors", words)
    monkeypatch.setattr(zero_shot, "MEMORY", tmp_path / "memory.json")
    tiny_dataset(users=20).save(tmp_path / "known")
    tiny_dataset(users=12, items=18, seed=3).save(tmp_path / "strange")
    options = ["--train", str(tmp_path / "known"), "--asked", str(tmp_path / "strange")]
    done = CliRunner().invoke(zero_shot.app, [*options, "--work", str(tmp_path / "work"), "--users", "10"])
    assert done.exit_code == 0, done.output
    rows = {row["criterion"]: row for row in results.read_rows(tmp_path / "memory.json")}
    assert [name.split(" above ")[1] for name in sorted(rows)] == [
        "popularity, lower end, seed 0",
        "text similarity, lower end, seed 0",
    ]
    assert all(row["limit"] == "> 0" for row in rows.values())


def test_the_last_event_of_the_training_part_is_asked_for_with_its_rating(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tiny_dataset(users=6)
    values = pl.Series("value", np.arange(len(plain.events), dtype=np.float64))
    rated: Dataset = replace(plain, events=plain.events.with_columns(values))
    given: list[Sequence[Question]] = []

    def fit(questions: Sequence[Question], *_: Any, **__: Any) -> Any:
        given.append(questions)
        return PromptedHead(DIM, 3)

    monkeypatch.setattr(sentence_vectors, "item_vectors", words)
    monkeypatch.setattr(zero_shot, "fit_prompted", fit)
    monkeypatch.setattr(zero_shot, "RATED_LEAST", 2)
    trained(rated, Path("data"), words, 6, 0)
    (questions,) = given
    asked_for = np.array([one.rating for one in questions], float)
    assert (asked_for.mean(), asked_for.std()) == pytest.approx((0, 1))
    known, log = values_of(rated), rated.events
    for one, user in zip(questions, log["user_id"].unique(maintain_order=True), strict=True):
        events = log.filter(pl.col("user_id") == user)["item_id"].to_list()[:-2]
        assert len(one.ratings) == len(one.history) == len(events) - 1
        assert one.ratings[-1] == known[user, events[-2]]


def test_hardly_any_ratings_and_equal_ones_are_none() -> None:
    few = [Question(np.array([1]), 2, (3.0,), 4.0), Question(np.array([1]), 2)]
    assert [one.rating for one in standardised(few)] == [None, None]
    equal = standardised([Question(np.array([1]), 2, (), 4.0)] * 200)
    assert equal[0].rating is None and equal[0].ratings == ()
