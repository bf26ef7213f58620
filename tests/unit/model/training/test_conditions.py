"""What a question may know: price bands and categories of training, and the moment as an evaluation asks about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from model.data.dataset import Dataset, sequences
from model.data.errors import DataError
from model.data.split import Split, leave_one_out
from model.evaluation.evaluate import evaluate
from model.evaluation.question_context import KNOWN, question_context
from model.evaluation.rankers import network_ranker
from model.training.conditions import (
    PRICE_BANDS,
    Conditions,
    fit_context,
    item_controls,
    item_prices,
    item_styles,
    price_bands,
)
from model.training.config import StyleSource, TrainConfig
from model.training.fitted_parts import prompt_rows
from model.training.trainer import Trainer
from service.artifact.features import GAP_UNKNOWN, ContextVocabulary, quantised_gap_ms
from tests.support.data_builders import tiny_dataset


def paid(dataset: Dataset, **columns: pl.Expr) -> Dataset:
    """The same log without listed prices; `columns` replace those of the events."""
    items = dataset.items.with_columns(price=pl.lit(None, pl.Float64))
    events = dataset.events.with_columns(**columns)
    return Dataset.of("paid", events, items, dataset.users, has_time=True, category_kind="path")


def fitted(dataset: Dataset, source: StyleSource = "none") -> tuple[Split, ContextVocabulary, Conditions]:
    split = leave_one_out(sequences(dataset))
    controls, styles = item_controls(dataset, split.train.item_ids), item_styles(dataset, split.train, source)
    vocabulary = fit_context(dataset, split.train, controls, styles)
    return split, vocabulary, Conditions.of(dataset, split.train, vocabulary, controls, styles)


def test_a_price_is_the_median_paid_in_purchases_of_the_training_part() -> None:
    number = pl.int_range(pl.len()).cast(pl.Float64)
    dataset = paid(tiny_dataset(30, 12), value=number)
    split = leave_one_out(sequences(dataset))
    kept: dict[str, list[float]] = {}
    for _, rows in dataset.events.group_by("user_id", maintain_order=True):
        for row in rows.head(len(rows) - 2).iter_rows(named=True):
            if row["event_type"] == "purchase":
                kept.setdefault(row["item_id"], []).append(row["value"])
    wanted = [float(np.median(kept[i])) if i in kept else np.nan for i in split.train.item_ids]
    np.testing.assert_allclose(item_prices(dataset, split.train), wanted)


def test_listed_prices_go_before_paid_ones_and_ratings_are_no_prices() -> None:
    listed = tiny_dataset(20, 12)
    split = leave_one_out(sequences(listed))
    assert item_prices(listed, split.train).tolist() == listed.items["price"].to_list()
    rated = paid(listed, value=pl.lit(5.0), event_type=pl.lit("rating"))
    assert price_bands(rated, leave_one_out(sequences(rated)).train) == [None] * 12
    assert ContextVocabulary.PRICE not in fitted(rated)[1].slots


def test_bands_hold_about_as_many_items_each_and_are_in_the_order_of_the_prices() -> None:
    dataset = tiny_dataset(60, 40)
    train = leave_one_out(sequences(dataset)).train
    band = np.array([PRICE_BANDS.index(b or "") for b in price_bands(dataset, train)])
    assert (np.diff(band[np.argsort(item_prices(dataset, train))]) >= 0).all()
    assert np.bincount(band, minlength=4).min() >= 8


def test_both_upper_levels_of_a_path_can_be_asked_for_and_all_tags() -> None:
    path = tiny_dataset(10, 10).items.with_columns(category=pl.lit(["a", "b", "c"], pl.List(pl.String)))
    plain = tiny_dataset(10, 10)
    for kind, wanted in (("path", ["a", "b"]), ("tags", ["a", "b", "c"])):
        dataset = replace(plain, items=path, category_kind=kind)  # type: ignore[arg-type]
        assert item_controls(dataset, ["i0"]) == [wanted]


def test_a_price_band_is_shown_as_often_as_a_category_and_is_the_target_s() -> None:
    _, vocabulary, conditions = fitted(tiny_dataset(20, 20))
    torch.manual_seed(0)
    target = torch.randint(20, (4000,))
    zero = torch.zeros_like(target)
    rows, _ = conditions.sample(TrainConfig(control_known=0.25), zero, target, zero, zero)
    band = rows[:, vocabulary.slots.index("price_band")]
    assert float((band > 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(band[band > 0], conditions.prices[target[band > 0]])


def test_a_question_knows_what_is_named_and_nothing_else() -> None:
    dataset = tiny_dataset(20, 15)
    scenes = dataset.events.with_columns(scene=pl.lit("home"))
    dataset = Dataset.of("s", scenes, dataset.items, dataset.users, has_time=True, category_kind="path")
    split, vocabulary, conditions = fitted(dataset, "attributes")
    log, holdout = split.sequences, split.test
    slots = vocabulary.slots
    features = np.arange(len(vocabulary.fields)).tolist()
    columns = {
        "features": features,
        "scene": [slots.index("scene")],
        "category": [slots.index("category")],
        "price_band": [slots.index("price_band")],
        "style": [slots.index("style")],
    }
    for name in KNOWN:
        asked = question_context(split, holdout, vocabulary, conditions, frozenset({name}))
        others = np.delete(asked.context, columns.get(name, []), axis=1)
        assert not others.any()
        assert (asked.gap_ms != GAP_UNKNOWN).any() == (name == "gap")
        assert name == "gap" or asked.context[holdout.users][:, columns[name]].any()
    asked = question_context(split, holdout, vocabulary, conditions, frozenset(KNOWN))
    for user, end, target in zip(holdout.users, holdout.history_end, holdout.target, strict=True):
        row = dict(zip(slots, asked.context[user].tolist(), strict=True))
        item = dataset.items.row(int(target), named=True)
        category = {vocabulary.values["category"].get(c) for c in item["category"]}
        assert row["category"] in category
        assert row["scene"] == vocabulary.values["scene"]["home"]
        gap = int(log.time_ms[end] - log.time_ms[end - 1])
        read = int(quantised_gap_ms(np.array([gap]))[0])
        assert asked.gap_ms[user] == (read if gap <= vocabulary.max_gap_ms else GAP_UNKNOWN)
    with pytest.raises(ValueError, match="weather"):
        question_context(split, holdout, vocabulary, conditions, frozenset({"weather"}))


def test_within_a_category_lists_hold_its_items_alone_and_the_target_is_one_of_them() -> None:
    split, vocabulary, conditions = fitted(tiny_dataset(20, 15))
    told = question_context(split, split.test, vocabulary, conditions, frozenset({"category"}), within=True)
    untold = question_context(split, split.test, vocabulary, conditions, within=True)
    mask, same = told.mask(split.test.users), untold.mask(split.test.users)
    assert mask is not None and same is not None
    assert (mask == same).all(), "what the model is told does not change what may be listed"
    assert not untold.context.any()
    assert mask[np.arange(len(split.test)), split.test.target].all()
    names = dict(enumerate(split.sequences.item_ids))
    items = tiny_dataset(20, 15).items.rows_by_key("item_id", named=True, unique=True)
    for user, row in zip(split.test.users, mask, strict=True):
        code = told.context[user, -1]
        value = next(v for v, r in vocabulary.values["category"].items() if r == code)
        assert {i for i in names if value in items[names[i]]["category"]} == set(np.flatnonzero(row))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A user jumps anywhere, so that only the asked category says where to."""
    torch.set_num_threads(1)
    settings = TrainConfig(
        size="tiny", batch_tokens=200, learning_rate=3e-2, warmup_steps=5, max_epochs=30, patience=30, max_length=16,
        control_known=0.5,
    )  # fmt: skip
    trainer = Trainer(tiny_dataset(80, 40, follow=0.0), Path("data"), tmp_path_factory.mktemp("asked"), settings)
    trainer.fit()
    return trainer


def test_a_category_that_is_asked_for_moves_the_ranking_to_it(trained: Trainer) -> None:
    part = trained.split.test
    systems = {
        name: network_ranker(
            trained.average,
            trained.vocabulary,
            questions=question_context(trained.split, part, trained.context, trained.conditions, known),
        )
        for name, known in (("told", frozenset({"category"})), ("untold", frozenset()))
    }
    systems["published"] = network_ranker(trained.average, trained.vocabulary)
    figures = evaluate(systems, trained.split, samples=1).systems
    recall = {name: float(result.figures["recall@10"] or 0) for name, result in figures.items()}
    assert recall["told"] > recall["untold"] + 0.15
    assert recall["untold"] == recall["published"], "nothing known is the published protocol"


def test_styles_are_the_values_of_most_items_and_a_training_shows_one_of_the_targets() -> None:
    dataset = tiny_dataset(20, 12)
    attributes = [["plain"] * (n % 2 == 0) + ["bold"] * (n % 3 == 0) for n in range(len(dataset.items))]
    items = dataset.items.with_columns(attributes=pl.Series(attributes, dtype=pl.List(pl.String)))
    dataset = Dataset.of("styled", dataset.events, items, dataset.users, has_time=True, category_kind="path")
    split, vocabulary, conditions = fitted(dataset, "attributes")
    train = split.train
    assert item_styles(dataset, train, "none") == [[]] * 12
    styles = item_styles(dataset, train, "attributes")
    own = dict(zip(items["item_id"], attributes, strict=True))
    assert styles == [sorted(own[item]) for item in train.item_ids]
    assert vocabulary.slots[-3:] == ("style", "scene", "category")
    assert "style" in vocabulary.controls
    config = TrainConfig().updated({"control_known": 1.0, "styles": "attributes"})
    target = torch.arange(12)
    shown, _ = conditions.sample(config, torch.zeros(12, dtype=torch.int64), target, target, torch.full((12,), -1))
    names = {row: name for name, row in vocabulary.values["style"].items()}
    for item, row in enumerate(shown[:, -3].tolist()):
        assert names[row] in styles[item] if styles[item] else row == 0
    asked = question_context(split, split.valid, vocabulary, conditions, frozenset({"style"})).context[:, -3]
    for user, item in zip(split.valid.users.tolist(), split.valid.target.tolist(), strict=True):
        assert names[asked[user]] in styles[item] if styles[item] else asked[user] == 0


def test_soft_prompts_have_the_rows_of_one_slot_or_are_refused_with_what_could_have_them() -> None:
    _, vocabulary, _ = fitted(tiny_dataset(20, 12))
    config = TrainConfig().updated({"network": {"prompts": 3}, "prompt_for": "category"})
    rows = vocabulary.values["category"].values()
    assert prompt_rows(config, vocabulary) == {
        "prompt_slot": vocabulary.slots.index("category"),
        "prompt_first": min(rows),
        "prompt_rows": len(rows),
    }
    assert prompt_rows(TrainConfig(), vocabulary) == {}
    with pytest.raises(DataError, match=r"(?s)weather.*category"):
        prompt_rows(config.updated({"prompt_for": "weather"}), vocabulary)
