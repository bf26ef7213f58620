"""The commands behind the condition tables: what their data are, what they compare, and how it is drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from loadtests.common.results import read_rows
from loadtests.draw.quality_conditions import conditions, long_histories
from loadtests.quality import condition_rows
from loadtests.quality.condition_data import day_part, journey, typed_by_rating
from loadtests.quality.condition_rows import PARTS, Ablation, compared, keep
from loadtests.quality.conditions import JOURNEY, TYPES
from loadtests.quality.histories_of_length import cut_to
from loadtests.quality.long_histories import settings_of
from model.data.errors import DataError
from model.training.config import TrainConfig
from tests.support.data_builders import tiny_dataset

DAY_MS = 86_400_000


def test_the_newest_part_of_a_log_holds_what_its_rule_says() -> None:
    whole = tiny_dataset(40, 30)
    days, least, households = 20, 9, 2
    kept = journey(whole, days, least, households)
    newest: int = max(whole.events["timestamp"].to_list())
    count = Counter(whole.events["item_id"])
    users = list(dict.fromkeys(whole.events["user_id"]))[::households]
    rows = [
        row for row in whole.events.iter_rows(named=True)
        if row["timestamp"] > newest - days * DAY_MS and row["user_id"] in users and count[row["item_id"]] >= least
    ]  # fmt: skip
    assert kept.events.drop("scene").rows(named=True) == rows
    assert set(kept.items["item_id"]) == {row["item_id"] for row in rows}
    assert set(kept.users["user_id"]) == {row["user_id"] for row in rows}
    with pytest.raises(DataError, match="no event"):
        journey(whole, days, 10**6, households)
    with pytest.raises(DataError, match="times"):
        journey(tiny_dataset(has_time=False), days, least, households)


def test_a_part_of_the_day_is_that_of_the_clock_and_the_calendar() -> None:
    thursday = 1_700_092_800_000  # 2023-11-16 00:00 UTC
    times = pl.DataFrame({"t": [thursday + hour * 3_600_000 for hour in (10, 11, 15, 16, 48 + 9)]})
    assert times.select(day_part(pl.col("t"))).to_series().to_list() == [
        "weekday morning", "weekday midday", "weekday midday", "weekday evening", "weekend morning",
    ]  # fmt: skip


def test_ratings_become_types_and_other_values_are_refused() -> None:
    whole = tiny_dataset(10, 10)
    rated = whole.events.with_columns(value=(pl.int_range(pl.len()) % 5 + 1).cast(pl.Float64))
    dataset = type(whole).of("rated", rated, whole.items, whole.users, has_time=True)
    types = typed_by_rating(dataset).events["event_type"].to_list()
    assert types[:5] == ["view", "view", "click", "cart", "purchase"]
    with pytest.raises(DataError, match="1 to 5"):
        typed_by_rating(whole)


@pytest.mark.parametrize("part", PARTS)
def test_every_ablation_names_trainings_and_questions_that_there_are(part: str) -> None:
    variants = {"journey": JOURNEY, "types": TYPES}[part]
    baselines = {("none", name) for name in ("item-CF", "popularity", "repeat purchase")}
    extra = {*baselines, ("all", "served"), ("all", "served, gap known")} if part == "journey" else set()
    for one in PARTS[part]:
        for variant, how in (one.ours, one.theirs):
            assert how in variants[variant].asked or (variant, how) in extra, one.label
    for training in variants.values():
        TrainConfig().updated(training.settings)
    labels = [one.label for one in PARTS[part]]
    assert len(set(labels)) == len(labels)


def test_a_difference_is_between_the_same_questions_and_the_seeds_both_sides_have(tmp_path: Path) -> None:
    ranks = {("a", 0): [0, -1, 3, 12], ("a", 1): [0, 0, -1, -1], ("b", 0): [-1, -1, 3, -1], ("a", 2): [0, 0, 0, 0]}
    for (variant, seed), values in ranks.items():
        np.savez(tmp_path / f"x-{variant}-{seed}.ranks.npz", known=np.array(values))
    np.savez(tmp_path / "x-b-1.ranks.npz", known=np.array([-1, 5, -1, -1]))
    one = Ablation("a or b", ("a", "known"), ("b", "known"))
    found = compared(tmp_path, "x", one, [0, 1, 2], {})
    assert found is not None
    assert (found["seeds"], found["questions"]) == (2, 4)
    recall = found["recall@10"]
    assert (recall["with"], recall["without"]) == (0.5, 0.25)
    assert recall["difference"] == pytest.approx(0.25)
    half = compared(tmp_path, "x", Ablation("a or b", one.ours, one.theirs, "few"), [0, 1], {"few": np.arange(4) > 1})
    assert half is not None
    assert half["questions"] == 2
    assert half["recall@10"]["difference"] == 0.0
    assert compared(tmp_path, "x", Ablation("none", ("a", "known"), ("c", "known")), [0, 1], {}) is None


def test_a_row_stays_that_of_the_trial_with_more_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: dict[str, Any] = {}
    monkeypatch.setattr(condition_rows, "QUALITY", tmp_path / "quality.json")
    monkeypatch.setattr(condition_rows, "load", lambda _: saved)
    monkeypatch.setattr(condition_rows, "save", lambda _, payload, **__: saved.update(payload))

    def ask(trial: str, data: str, answered: list[int], *, seeds: int = 1) -> list[float]:
        for variant, how, ranks in (("none", "unknown", [-1] * len(answered)), ("scene", "known", answered)):
            for seed in range(seeds):
                keep(tmp_path, "journey", trial, variant, seed, {how: np.array(ranks)}, {}, {"data": data})
        return [row["value"] for row in read_rows(tmp_path / "quality.json")]

    assert ask("small", "log, 1 in 3", [0, -1]) == [0.5]
    assert ask("large", "log, all", [0, -1, -1, -1]) == [0.25]
    assert ask("small again", "log, 1 in 4", [0, 0]) == [0.25]
    assert ask("more seeds", "log, 1 in 3", [0, 0], seeds=3) == [1.0]
    assert ask("another", "shop", [0]) == [1.0, 1.0]
    assert len(saved["ablations"]) == 5


def test_a_cut_log_keeps_everybody_s_newest_events_and_its_chunks_hold_a_window() -> None:
    whole = tiny_dataset(12, 20)
    cut = cut_to(whole, 4)
    for user, rows in whole.events.group_by("user_id", maintain_order=True):
        assert cut.events.filter(pl.col("user_id") == user[0]).equals(rows.tail(5))
    for length, window, longest in (
        (50, 50, 51),
        (200, 50, 200),
        (200, 200, 201),
        (1000, 200, 800),
        (1000, 1000, 1001),
    ):
        settings = settings_of(length, window, 3)
        assert (settings.network_values()["window"], settings.max_length, settings.seed) == (window, longest, 3)


def test_tables_show_every_ablation_and_every_length() -> None:
    one = {"with": 0.3, "without": 0.2, "difference": 0.1, "low": 0.05, "high": 0.15, "p_value": 0.001}
    none = {**one, "difference": 0.0, "p_value": 0.9}
    head = {"seeds": 1, "questions": 10}
    figures = {"recall@10": 0.2, "ndcg@10": 0.1, "coverage@10": 0.5}
    drawn = conditions(
        {
            "command": "x",
            "date": "d",
            "ablations": {
                "journey-9": [
                    {"label": "gap", **head, "recall@10": one, "ndcg@10": one},
                    {"label": "scene", **head, "recall@10": none, "ndcg@10": none},
                ],
            },
            "runs": {
                f"journey-9-all-{seed}": {
                    "part": "journey",
                    "data": "log",
                    "variant": "all",
                    "figures": {"known": figures},
                }
                for seed in range(3)
            },
        }
    )
    assert "| gap | 1 | 10 | 0.2000 | 0.3000 | +0.1000 (+0.0500 … +0.1500) * |" in drawn
    assert "+0.0000 (+0.0500 … +0.1500) * |" not in drawn
    assert "| all | known | 3 | 0.2000 | 0.1000 | 0.5000 |" in drawn
    cost = {"epochs": 2.0, "cpu_seconds_an_epoch": 9.0, "encode_ms": 1.5, "event_ms": 0.4, "state_bytes": 4096}
    runs = {
        str(window): {"data": "log", "minutes": 5.0, "length": 200, "window": window, **cost, **figures}
        for window in (50, 200)
    }
    drawn = long_histories(
        {
            "command": "x",
            "date": "d",
            "runs": runs,
            "differences": [{"data": "log", "length": 200, "window": 50, "recall@10": none}],
        }
    )
    assert "| 200 | 50 | 1 | 0.2000 | 0.1000 | +0.0000 (+0.0500 … +0.1500) | 2.0 | 9 | 1.5 | 0.40 | 4,096 |" in drawn
    assert "| 200 | 200 (full) | 1 | 0.2000 | 0.1000 | – |" in drawn
