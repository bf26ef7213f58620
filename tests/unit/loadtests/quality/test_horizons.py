"""Questions a day, a week and a month ahead: what is known, what is measured, and the command that asks them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.quality import horizons
from loadtests.quality.horizon_criteria import ALL, HORIZONS, LEARNED, STANDARD, SWEEPS, VARIANTS, verdict
from loadtests.quality.horizon_questions import ahead, changed, evened, item_ages
from loadtests.quality.horizons import chosen, gradient, paired, settings_of
from model.data.dataset import sequences
from model.data.split import leave_one_out
from model.data.times import DAY_MS
from tests.support.data_builders import tiny_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

SPLIT = leave_one_out(sequences(tiny_dataset(users=30, min_events=3, max_events=20)))


@pytest.mark.parametrize("name", ALL)
def test_every_training_is_a_configuration_and_compared_with_one_that_is_trained(name: str) -> None:
    config = settings_of(ALL[name], 1, 3, "tiny")
    assert (config.encoder, config.seed, config.max_epochs) == ("window_attention", 1, 3)
    assert name == STANDARD or ALL[name].against in VARIANTS
    assert {STANDARD, name} <= set(chosen(name, ""))


def test_a_sweep_has_every_rate_of_its_decays_alone() -> None:
    swept = chosen("", "linear,exponential")
    assert set(swept) - {STANDARD} == {name for name in SWEEPS if not name.startswith("logarithmic")}
    assert chosen("", "") == list(VARIANTS)
    for options in (("no such training", ""), ("", "cubic")):
        with pytest.raises(typer.BadParameter, match="choose from"):
            chosen(*options)


@pytest.mark.parametrize("horizon", ["day", "week"])
def test_what_is_known_ends_long_enough_before_the_answer(horizon: str) -> None:
    (least, less), log, test = HORIZONS[horizon], SPLIT.sequences, SPLIT.test
    wanted = []
    for user, end, target in zip(test.users.tolist(), test.history_end.tolist(), test.target.tolist(), strict=True):
        at = log.time_ms[end]
        known = [row for row in range(int(log.offsets[user]), end) if log.time_ms[row] <= at - least]
        if known and at - log.time_ms[known[-1]] < less:
            wanted.append((user, known[-1] + 1, target, at))
    asked = ahead(SPLIT, least, less, 10**6)
    questions = asked.questions
    got = zip(questions.users, questions.history_end, questions.target, asked.answered_ms, strict=True)
    assert list(got) == wanted and wanted
    assert len(ahead(SPLIT, least, less, 3)) == 3


def test_even_times_keep_the_first_and_the_last_event_and_everything_that_is_not_known() -> None:
    questions = ahead(SPLIT, *HORIZONS["day"], 5).questions
    log = evened(SPLIT.sequences, questions)
    touched = np.zeros(log.n_events, bool)
    for user, end in zip(questions.users, questions.history_end, strict=True):
        rows = slice(int(log.offsets[user]), int(end))
        touched[rows] = True
        gaps = np.diff(log.time_ms[rows])
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
        for place in (rows.start, rows.stop - 1):
            assert log.time_ms[place] == SPLIT.sequences.time_ms[place]
    assert np.array_equal(log.time_ms[~touched], SPLIT.sequences.time_ms[~touched])


def test_what_lists_are_like() -> None:
    lists, others = np.array([[1, 2, 3, -1], [4, 5, 6, 7]]), np.array([[3, 9, 1, -1], [4, 5, 6, 7]])
    assert changed(lists, others).tolist() == pytest.approx([1 / 3, 0])
    train, at = SPLIT.train, int(SPLIT.train.time_ms.max())
    first = [min(train.time_ms[train.item == item], default=at) for item in range(8)]
    ages = [np.mean([(at - first[item]) / DAY_MS for item in row if item >= 0]) for row in lists]
    assert item_ages(train, lists, np.array([at, at])).tolist() == pytest.approx(ages)
    assert item_ages(train, lists, np.array([0, 0])).tolist() == [0, 0]


def test_both_paired_tests_have_to_find_a_difference() -> None:
    rng = np.random.default_rng(0)
    ours = rng.random(200)
    theirs = ours - rng.normal(0.1, 0.2, 200)
    found = paired(ours, theirs)
    assert found["p_t"] == pytest.approx(stats.ttest_1samp(ours - theirs, 0).pvalue)
    assert found["low"] < found["difference"] < found["high"]
    assert paired(ours, ours)["p_t"] == 1
    assert verdict(found["difference"], (found["p_bootstrap"], found["p_t"])) == "helps"
    assert verdict(0.1, (0.01, 0.2)) == "no difference found"
    lines = {h: [{"training": LEARNED, "ahead": {"ndcg@10": {"difference": d}}}] for h, d in (("day", 3), ("month", 1))}
    assert gradient(lines) == 2
    assert gradient({"day": lines["day"]}) is None


def test_an_interaction_is_what_the_decay_gains_beyond_what_it_gains_with_rotary_positions(tmp_path: Path) -> None:
    dataset = tiny_dataset(users=12)
    trial, runs = horizons.Trial(dataset, tmp_path, tmp_path, 1, "tiny"), []
    ndcg = {STANDARD: 0.1, LEARNED: 0.2, "positions: none": 0.5, "positions: none, no decay": 0.1}
    for name, value in ndcg.items():
        trial.place(name, 0).mkdir()
        np.save(trial.place(name, 0) / "day.npy", np.full((6, 40), value))
        runs.append({"training": name, "seed": 0})
    (line,) = horizons.interactions(trial, runs, "day")
    assert line["positions"] == "none"
    assert line["difference"] == pytest.approx(0.3)


def test_one_command_trains_asks_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "MEMORY", tmp_path / "memory.json")
    monkeypatch.setattr(horizons, "LEAST_QUESTIONS", 3)
    app, calls, train_and_ask = typer.Typer(), list[str](), horizons.train_and_ask
    app.command()(horizons.main)

    def counted(trial: horizons.Trial, name: str, seed: int) -> None:
        calls.append(name)
        train_and_ask(trial, name, seed)

    monkeypatch.setattr(horizons, "train_and_ask", counted)
    tiny_dataset(users=12).save(tmp_path / "data")
    tiny_dataset(users=12, has_time=False).save(tmp_path / "without")
    options = ["--work", str(tmp_path / "work"), "--seeds", "0", "--epochs", "1", "--size", "tiny", "--only", LEARNED]
    for _ in range(2):
        done = CliRunner().invoke(app, ["--data", str(tmp_path / "data"), *options])
        assert done.exit_code == 0, done.output
    assert calls == [STANDARD, LEARNED], "what was trained is not trained again"
    (part,) = json.loads((tmp_path / "quality_horizons.json").read_text("utf-8"))["parts"].values()
    assert set(part["tables"]) == {"day", "week"} and part["questions"]["month"] == 0
    (line,) = part["tables"]["day"]
    assert line["training"] == LEARNED and 0 <= line["changed by even times"] <= 1 and line["age@10, days"] >= 0
    rows = results.read_rows(results.MEMORY)
    assert [row["criterion"].rsplit(", ", 1)[0].split(": ")[1] for row in rows] == [LEARNED, LEARNED]
    done = CliRunner().invoke(app, ["--data", str(tmp_path / "without"), *options])
    assert done.exit_code == 2 and "no times" in done.output
