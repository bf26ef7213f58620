"""What lists feel like: from trainings of several seeds to the tables, and what is compared with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.draw.quality import ranking as drawn_ranking
from loadtests.draw.quality_lists import fairness
from loadtests.draw.quality_lists import lists as drawn
from loadtests.draw.quality_lists import segments as drawn_segments
from loadtests.quality import lists, ranking, segments, strategies
from loadtests.quality.strategies import SERVED, Asked, World
from model.data.dataset import sequences
from model.training.config import TrainConfig
from model.training.run_folder import split_of
from service.engine.decoding import Decoding
from service.policies import policies
from service.settings.service_settings import DEFAULT_POLICIES
from tests.support.data_builders import tiny_dataset
from tests.support.figures import keep_in

SEEDS = 2


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Figures go to a folder of the test."""
    folder = tmp_path / "results"
    keep_in(folder, monkeypatch)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    return folder


def invoke(command: Callable[..., None] | typer.Typer, *arguments: str) -> None:
    app = command if isinstance(command, typer.Typer) else typer.Typer()
    if not isinstance(command, typer.Typer):
        app.command()(command)
    found = CliRunner().invoke(app, arguments)
    if found.exception is not None:
        raise found.exception


def test_seeds_are_trained_listed_judged_and_drawn(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "GRID", (Decoding("beam", beam_width=5), Decoding("top_p", top_p=0.5)))
    monkeypatch.setattr(segments, "LEAST_USERS", 1)
    monkeypatch.setattr(lists, "LEAST_GROUP", 2)
    tiny_dataset(50, 25).save(tmp_path / "log")
    data = ["--data", str(tmp_path / "log")]
    tiny = ["batch_tokens=500", "max_epochs=1", "size=tiny"]
    settings = [part for value in tiny for part in ("--set", value)]
    invoke(ranking.app, *data, "--work", str(tmp_path), "--seeds", "0,1", *settings)
    ranked = results.load(ranking.NAME, kept)
    assert ranked is not None
    # Never taken for the defaults' figures.
    label = ", ".join(["strict tiny", *tiny])
    assert set(ranked["parts"]) == {label}
    assert f"| {label.removeprefix('strict ')} | strict | as served |" in drawn_ranking(ranked)

    [folder] = tmp_path.glob("*-tiny-*")
    assert ranked["parts"][label]["command"].endswith(" ".join(f"--set {one}" for one in tiny))
    runs = ",".join(str(folder / str(seed)) for seed in range(SEEDS))
    options = ["--runs", runs, *data, "--work", str(tmp_path / "lists")]
    invoke(lists.main, *options)
    found = results.load(lists.NAME, kept)
    assert found is not None
    part = found["parts"]["tiny"]
    # The same graphs and the same questions as those of the ranking.
    for measure in ("recall@10", "ndcg@10"):
        served = ranked["parts"][label]["means"]["blend"][measure]["mean"]
        assert part["strategies"]["beam 5"][measure]["mean"] == pytest.approx(served)
    text = drawn(found)
    assert all(name in text for name in ("top-p 0.5", "**as the policies say**", "item-CF"))
    assert {row["kind"] for row in part["groups"]} >= {"gender", "age_group", "popularity of the item asked for"}
    assert "| gender | F |" in fairness(found)

    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "lists").rglob("*.npy")}
    assert len(written) > 4 * SEEDS
    invoke(segments.main, *options)
    judged = results.load(segments.NAME, kept)
    assert judged is not None
    assert "| active, 14 |" in drawn_segments(judged)
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "lists").rglob("*.npy")}
    assert written.items() < after.items(), "what was listed is not made again; validation was asked as well"


@pytest.fixture(scope="module")
def asked() -> Asked:
    """A perfect item-CF, a beam that is right for women alone, and what is served right for nobody."""
    dataset = tiny_dataset(80, 30)
    split = split_of(TrainConfig(), sequences(dataset))
    target = split.test.target
    wrong = (target[:, None] + np.arange(1, 11)) % 30
    right = np.concatenate([target[:, None], wrong[:, :9]], axis=1)
    women = np.array([split.sequences.user_ids[user][1:] for user in split.test.users]).astype(int) % 2 == 1
    found = {"beam 5": np.where(women[:, None], right, wrong), SERVED: wrong, "item-CF": right, "popularity": wrong}
    names = np.where(np.arange(len(target)) % 2, "active", "new")
    return Asked(dataset, split, policies.load(DEFAULT_POLICIES), names, [found])


def test_each_list_is_compared_with_that_of_the_same_user(asked: Asked) -> None:
    rows = {
        (row["name"], row["measure"]): row for row in lists.compared(asked, World.of(asked), ["item-CF", "popularity"])
    }
    assert rows["item-CF", "recall@10"]["difference"] == pytest.approx(0.5)
    assert rows["popularity", "recall@10"]["difference"] == pytest.approx(-0.5)
    assert rows["item-CF", "recall@10"]["p_holm"] < 0.05
    assert all(row["p_holm"] >= row["p_value"] for row in rows.values())


def test_recall_is_that_of_the_group_alone(asked: Asked) -> None:
    swapped = replace(asked, lists=[{**asked.lists[0], SERVED: asked.lists[0]["beam 5"]}])
    by = {(row["kind"], row["group"]): row for row in lists.groups(swapped, World.of(swapped))}
    assert by["gender", "F"]["recall@10"] == 1.0
    assert by["gender", "M"]["recall@10"] == 0.0
    assert by["gender", "F"]["difference"] == 0.0
    assert by["gender", "M"]["difference"] == -1.0
    assert by["gender", "F"]["questions"] + by["gender", "M"]["questions"] == len(asked.segment)


def test_groups_lie_apart_by_more_than_chance_only_where_they_do(asked: Asked) -> None:
    swapped = replace(asked, lists=[{**asked.lists[0], SERVED: asked.lists[0]["beam 5"]}])
    world = World.of(swapped)
    by = {row["kind"]: row for row in lists.apart(swapped, world)}
    assert by["gender"]["apart"] == 1.0
    assert (by["gender"]["lowest"], by["gender"]["highest"]) == ("M", "F")
    assert by["gender"]["p_holm"] < 0.01
    assert lists.OF_ITEMS not in by, "not a way of telling users apart"


def test_far_apart_is_what_groups_drawn_at_random_seldom_are() -> None:
    rng = np.random.default_rng(0)
    by_chance = [
        lists.farthest([rng.integers(0, 2, size).astype(np.float64) for size in (20, 30, 40, 50)], draws=200)[1]
        for _ in range(200)
    ]
    assert 0.02 <= np.mean(np.array(by_chance) < 0.1) <= 0.2
    assert lists.farthest([np.zeros(40), np.ones(40)], draws=200) == (1.0, 1 / 201)


def test_groups_of_too_few_say_nothing(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "LEAST_GROUP", 41)
    kinds = {row["kind"] for row in lists.groups(asked, World.of(asked))}
    assert "gender" not in kinds
