"""One limit holds for all of a training: what was prepared counts, and the evaluation has its time kept for it."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from model.cli.closing_evaluation import prepare
from model.data.dataset import Dataset
from model.evaluation.baselines import Baselines
from model.training.config import TrainConfig
from model.training.reports import Tick
from model.training.time_limit import FEWEST_USERS, TimeLimit
from model.training.trainer import Trainer
from tests.support.clock import FakeClock
from tests.support.data_builders import tiny_dataset

USERS = FEWEST_USERS + 30


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset(users=USERS)


def trainer_in(folder: Path, dataset: Dataset, *, resume: bool = False) -> Trainer:
    config = TrainConfig.build(
        None, ["size=tiny", "max_epochs=50", "patience=50", "batch_tokens=512", "warmup_steps=1"], seed=0
    )
    return Trainer(dataset, Path("data"), folder, config, resume=resume)


def test_the_time_of_the_run_counts_from_its_first_command() -> None:
    clock = FakeClock()
    limit = TimeLimit(2.0, used_s=30.0, clock=clock)
    clock.advance(20)
    limit.resume(10.0)
    limit.reserved_s = 25.0
    assert (limit.used_s, limit.left_s, limit.epochs_end_s, limit.epochs_left_s) == (60.0, 60.0, 95.0, 35.0)
    clock.advance(90)
    assert (limit.left_s, limit.epochs_left_s) == (0.0, -55.0)
    without = TimeLimit(None, clock=clock)
    assert (without.left_s, without.epochs_left_s, without.epochs_end_s, without.deadline(0.5)) == (
        math.inf, math.inf, None, None,
    )  # fmt: skip


def test_as_many_users_are_asked_as_there_is_time_for() -> None:
    limit = TimeLimit(1.0, clock=FakeClock())
    assert limit.users_for(10_000, seconds=6.0, share=0.1) == 10_000
    assert limit.users_for(10_000, seconds=60.0, share=0.1) == 1000
    assert limit.users_for(10_000, seconds=6e6, share=0.1) == FEWEST_USERS
    assert limit.users_for(10, seconds=6e6, share=0.1) == 10
    assert TimeLimit(None).users_for(10_000, seconds=6e6, share=0.1) == 10_000


def test_epochs_end_in_time_for_what_follows_and_a_resumed_run_does_not_begin_anew(
    dataset: Dataset, tmp_path: Path
) -> None:
    clock = FakeClock()
    limit = TimeLimit(1.0, clock=clock)
    limit.reserved_s = 20.0
    trainer = trainer_in(tmp_path, dataset)
    clock.advance(25)  # the preparation

    def batch(_: Tick) -> None:
        clock.advance(1)
        rates.append(trainer.optimiser.param_groups[0]["lr"])

    rates: list[float] = []
    progress = trainer.fit(limit=limit, report=batch)
    assert (progress.seconds, progress.prepared_seconds, len(rates)) == (40.0, 25.0, 15)
    assert rates[-1] < 0.2 * max(rates), "the learning rate falls over the time for the epochs"

    resumed, later = trainer_in(tmp_path, dataset, resume=True), TimeLimit(1.0, clock=clock)
    later.resume(resumed.progress.seconds)
    clock.advance(8)  # prepared again
    before = resumed.progress.epoch
    assert resumed.fit(limit=later, report=batch).epoch > before
    assert resumed.progress.seconds == 60.0
    assert resumed.progress.prepared_seconds == 33.0


def test_a_run_whose_time_is_up_asks_few_users_makes_one_batch_and_says_so(dataset: Dataset, tmp_path: Path) -> None:
    clock, out, ticks = FakeClock(), io.StringIO(), list[Tick]()
    limit = TimeLimit(0.5, clock=clock)
    trainer = trainer_in(tmp_path, dataset)
    clock.advance(90)
    closing = prepare(trainer, dataset, limit, Console(file=out, width=200))
    trainer.fit(limit=limit, report=ticks.append)
    result = closing.of(trainer, Console(file=io.StringIO()))
    assert (len(ticks), trainer.progress.epoch) == (1, 1)
    assert (result.users, trainer.progress.questions, len(closing.baselines.trials)) == (FEWEST_USERS, FEWEST_USERS, 1)
    said = out.getvalue()
    for part in (
        "preparing took 1:30 of 0:30, which cannot be cut",
        f"item-CF: 1 of {Baselines.CANDIDATES} settings",
        f"the evaluation asks {FEWEST_USERS} of {USERS} test users",
        f"a validation asks {FEWEST_USERS} of {USERS} users",
        "estimated: ",
        "--max-minutes is too short for this data",
    ):
        assert part in said


def test_with_time_enough_nothing_is_cut(dataset: Dataset, tmp_path: Path) -> None:
    out, limit = io.StringIO(), TimeLimit(600.0)
    trainer = trainer_in(tmp_path, dataset)
    closing = prepare(trainer, dataset, limit, Console(file=out, width=200))
    assert len(closing.split.test) == trainer.progress.questions == USERS
    assert len(closing.baselines.trials) == Baselines.CANDIDATES
    assert 0 < limit.reserved_s < 60
    assert "asks" not in out.getvalue() and "too short" not in out.getvalue()
