"""The command that compares training methods: what it trains, how it ranks by paths, what its lines say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.quality import methods
from loadtests.quality.method_criteria import BY_NAME, DEFAULTS, METHODS, Method
from loadtests.quality.methods import chosen, compared, settings_of
from loadtests.quality.path_ranker import path_scores
from model.training.method_settings import METHOD_DEFAULTS
from model.training.reports import Report, Tick
from model.training.trainer import Trainer
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_configuration_and_compared_with_one_that_is_trained(name: str, tmp_path: Path) -> None:
    config = settings_of(METHODS[name], 1, 8, "tiny", tmp_path)
    assert (config.seed, config.max_epochs, config.patience, config.size) == (1, 8, 8, "tiny")
    assert set(config.methods) <= METHOD_DEFAULTS.keys()
    assert METHODS[name].against in METHODS
    assert chosen(name) == [one for one in METHODS if one in {DEFAULTS, METHODS[name].against, name}]


def test_a_method_that_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(typer.BadParameter, match="contrasts: choose from"):
        chosen("contrasts")
    with pytest.raises(typer.BadParameter, match="adapters 16: give the data set of another shop"):
        chosen("adapters 16", has_other=False)
    with pytest.raises(typer.BadParameter, match="no event names its session"):
        chosen(BY_NAME, has_sessions=False)
    assert set(METHODS) - set(chosen("", has_other=False, has_sessions=False)) == {"adapters 16", BY_NAME}


def test_a_stand_in_becomes_a_run_or_a_quarter_of_the_epochs(tmp_path: Path) -> None:
    of_teacher, of_other = str(tmp_path / "teacher-3"), str(tmp_path / "other-3")
    assert settings_of(METHODS["distillation"], 3, 8, "tiny", tmp_path).methods == {"teacher": of_teacher}
    adapters = settings_of(METHODS["adapters 16"], 3, 8, "tiny", tmp_path).methods
    assert adapters == {"backbone": of_other, "adapter": 16}
    assert settings_of(METHODS["pretraining"], 0, 8, "tiny", tmp_path).methods == {"pretrain_epochs": 2}
    assert settings_of(Method(), 0, 8, "tiny", tmp_path).methods == {}


def test_path_scores_are_the_sums_of_token_log_probabilities() -> None:
    model, q = random_network(n_items=12).requires_grad_(False), torch.randn(3, 32)
    got = path_scores(model, q)
    for row in range(3):
        for item in range(12):
            s, total = model.begin(q[row]), 0.0
            for level, token in enumerate(model.codes[item].tolist()):
                total += float(torch.log_softmax(model.level_logits(level, s), -1)[token])
                if level + 1 < model.config.levels:
                    s = model.step(level, s, torch.tensor(token))
            assert float(got[row, item]) == pytest.approx(total, abs=1e-4)


def _found(folder: Path, name: str, ranks: list[int], seconds: float | None) -> dict[str, Any]:
    place = folder / f"{''.join(c if c.isalnum() else '-' for c in name)}-0"
    place.mkdir(parents=True)
    np.save(place / "ranks-dense.npy", np.array(ranks))
    hits = np.array(ranks) < 10
    figures = {"recall@10": float(hits.mean()), "ndcg@10": float(hits.mean()), "coverage@10": 0.5, "diversity@10": None}
    run = {"method": name, "seed": 0, "figures": {"dense": figures}, "cpu_seconds_an_epoch": seconds, "kept_bytes": 10}
    (place / "found.json").write_text(json.dumps(run), "utf-8")
    return run


def test_a_line_says_how_far_a_method_is_ahead_and_what_that_means(tmp_path: Path) -> None:
    runs = [
        _found(tmp_path, DEFAULTS, [99] * 40, 1.0),
        _found(tmp_path, "contrast .1", [0] * 30 + [99] * 10, 2.0),
        _found(tmp_path, "bfloat16", [99] * 40, None),
        _found(tmp_path, "negatives: batch", [0] * 40, 1.0),
    ]
    lines = {line["method"]: line for line in compared(runs, tmp_path)}
    assert set(lines) == {"contrast .1", "bfloat16"}, "what it is compared with was not trained"
    assert lines["contrast .1"]["verdict"] == "helps"
    assert lines["contrast .1"]["ahead"]["recall@10"]["difference"] == pytest.approx(0.75)
    assert lines["contrast .1"]["seconds_ratio"] == 2.0
    assert lines["bfloat16"]["seconds_ratio"] is None, "it was not timed"
    assert lines["bfloat16"]["verdict"] == "no difference found"


class Epochs:
    """Counts the epochs that are begun, and interrupts one of them after its first step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.interrupted = 0, 0
        train_epoch = Trainer.train_epoch

        def counted(trainer: Trainer, report: Report | None = None) -> dict[str, float]:
            self.begun += 1
            return train_epoch(trainer, self._interrupt if self.begun == self.interrupted else report)

        monkeypatch.setattr(Trainer, "train_epoch", counted)

    def _interrupt(self, _: Tick) -> None:
        raise KeyboardInterrupt


def test_the_command_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "MEMORY", tmp_path / "memory.json")
    epochs, app = Epochs(monkeypatch), typer.Typer()
    app.command()(methods.main)
    tiny_dataset(users=12).save(tmp_path / "data")
    tiny_dataset(users=16, seed=1).save(tmp_path / "larger")
    options = ["--data", str(tmp_path / "data"), "--seeds", "0", "--epochs", "2", "--size", "tiny"]
    options += ["--other", str(tmp_path / "larger"), "--only", "adapters 16"]

    def run(work: str, interrupted: int) -> tuple[int, int]:
        """Returns the exit code and the epochs that were begun; the `interrupted`th of them is broken off."""
        epochs.begun, epochs.interrupted = 0, interrupted
        done = CliRunner().invoke(app, [*options, "--work", str(tmp_path / work)])
        return done.exit_code, epochs.begun

    def found(work: str) -> list[Any]:
        (place,) = (tmp_path / work).glob("methods-*/adapters-16-0")
        of = json.loads((place / "found.json").read_text("utf-8"))
        return [of["figures"], of["epochs"], of["best_epoch"], np.load(place / "ranks-dense.npy").tolist()]

    assert run("unbroken", 0) == (0, 6), "two epochs of the defaults, of the other shop and of this one"
    assert run("broken", 3) == (1, 3), "before the other shop's first epoch was finished"
    assert run("broken", 4) == (1, 4), "in the last epoch"
    assert run("broken", 0) == (0, 1), "what is finished is not trained again"
    assert run("broken", 0) == (0, 0)
    assert found("broken") == found("unbroken")
    (row,) = results.read_rows(results.MEMORY)
    assert row["criterion"].endswith("adapters 16, NDCG@10 over defaults")
