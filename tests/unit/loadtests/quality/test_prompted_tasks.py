"""Ratings and reasons of a prompted head: what is asked, what it is compared with, and that both get rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.quality import prompted_tasks, zero_shot
from loadtests.quality.prompted_tasks import SHRINK, biases, questions_of
from loadtests.quality.zero_shot import values_of
from model.data.dataset import Dataset, sequences
from model.data.split import leave_one_out
from model.texts import sentence_vectors
from tests.support.data_builders import tiny_dataset
from tests.unit.loadtests.quality.test_zero_shot import words


def rated(users: int) -> Dataset:
    """A log in which some users and some items are rated higher than others."""
    plain = tiny_dataset(users=users, min_events=8)
    user, item = (pl.col(name).str.slice(1).cast(pl.Int64) for name in ("user_id", "item_id"))
    events = plain.events.with_columns((user % 3 + item % 2).cast(pl.Float64).alias("value"))
    return Dataset.of(plain.name, events, plain.items, plain.users, has_time=True)


def test_the_last_event_is_asked_for_after_all_the_others() -> None:
    dataset = rated(12)
    split, values = leave_one_out(sequences(dataset)), values_of(dataset)
    drawn = np.array([0, 3, 7])
    for question, number in zip(questions_of(split, drawn, values), drawn.tolist(), strict=True):
        user = split.sequences.user_ids[split.test.users[number]]
        events = dataset.events.filter(pl.col("user_id") == user)
        ids = [split.sequences.item_ids[item] for item in [*question.history.tolist(), question.target]]
        assert ids == events["item_id"].to_list()
        assert [*question.ratings, question.rating] == [values[user, item] for item in ids]


def test_biases_are_those_of_plain_loops() -> None:
    dataset = rated(12)
    log, values = leave_one_out(sequences(dataset)).train, values_of(dataset)
    events = [(u, int(i), values[log.user_ids[u], log.item_ids[i]]) for u in range(12) for i in log.item[log.user(u)]]
    mean = sum(value for *_, value in events) / len(events)
    found, of_user, of_item = biases(log, values)
    assert found == pytest.approx(mean)
    for item in {item for _, item, _ in events}:
        own = [value - mean for _, i, value in events if i == item]
        assert of_item[item] == pytest.approx(sum(own) / (len(own) + SHRINK))
    for user in range(12):
        own = [value - mean - of_item[item] for u, item, value in events if u == user]
        assert of_user[user] == pytest.approx(sum(own) / (len(own) + SHRINK))


def test_ratings_and_reasons_get_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_vectors, "item_vectors", words)
    monkeypatch.setattr(prompted_tasks, "item_vectors", words)
    monkeypatch.setattr(prompted_tasks, "MEMORY", tmp_path / "memory.json")
    monkeypatch.setattr(zero_shot, "RATED_LEAST", 10)
    rated(20).save(tmp_path / "log")
    options = ["--data", str(tmp_path / "log"), "--work", str(tmp_path / "work"), "--users", "20"]
    done = CliRunner().invoke(prompted_tasks.app, options)
    assert done.exit_code == 0, done.output
    rows = {
        row["criterion"].removeprefix("prompted head, log: "): row
        for row in results.read_rows(tmp_path / "memory.json")
    }
    judged = {name for name, row in rows.items() if row["limit"] == "> 0"}
    assert judged == {
        "squared error of ratings better than the mean, lower end, seed 0",
        "squared error of ratings better than user and item, lower end, seed 0",
        "reasons named first better than the newest item, lower end, seed 0",
        "reasons named first better than text, lower end, seed 0",
    }
    errors = {name: row["value"] for name, row in rows.items() if name.startswith("squared error of ratings, ")}
    # Users and items explain these ratings.
    assert errors["squared error of ratings, user and item"] < errors["squared error of ratings, the mean"]
    named = {name: row["value"] for name, row in rows.items() if name.startswith("reasons named first, ")}
    assert len(named) == 3 and all(0 <= value <= 1 for value in named.values())
