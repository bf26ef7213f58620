"""Several processes train as one does: parts of a batch, real processes, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.errors import ConfigError
from model.training.batch_loss import BatchLoss
from model.training.config import TrainConfig
from model.training.parallel.allowed import OF_ONE_PROCESS, check_allowed
from model.training.parallel.loss import ParallelLoss
from model.training.parallel.processes import Processes, joined
from model.training.parallel.sharded_trainer import ShardedTrainer
from model.training.positions import Moment
from model.training.reports import Tick
from model.training.run_folder import CHECKPOINT, Run, load_tensors
from model.training.sharded_files import Shards
from model.training.trainer import Trainer
from tests.support.data_builders import tiny_dataset
from tests.support.training_processes import DEADLINE_S, train

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {
    "size": "tiny",
    "batch_tokens": 200,
    "max_epochs": 2,
    "max_length": 16,
    "network": {"dropout": 0.2},
}


class Part(Processes):
    """A process that is alone and computes one part of the batches."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world, self.device = rank, world, torch.device("cpu")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(tiny_dataset(users=40), Path("data"), tmp_path_factory.mktemp("one") / "run", TrainConfig(**QUICK))


def summed(trainer: Trainer, config: TrainConfig, world: int) -> tuple[list[float], torch.Tensor]:
    """The losses and the gradient that the parts of a batch add up to."""
    trainer.model.train()
    trainer.model.zero_grad()
    batch = next(iter(trainer.plan.batches(0, trainer.network.n_items + 1)))
    losses = np.zeros(3)
    for rank in range(world):
        loss_of = ParallelLoss(trainer.model, trainer.conditions, config, trainer.log_q, Part(rank, world))
        loss_of.step = 7
        parts = loss_of(batch, Moment())
        parts[0].backward()  # type: ignore[no-untyped-call]
        losses += [part.item() for part in parts]
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    return losses.tolist(), gradient


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"negatives": 8},
        {"negatives": 8, "methods": {"negatives": "batch_mixed", "augment": 0.5}},
        {"type_weights": {"purchase": 3.0}, "label_smoothing": 0.1},
    ],
    ids=["full softmax", "sampled softmax", "batch negatives and augmentation", "type weights"],
)
@pytest.mark.parametrize("world", [2, 20])
def test_the_parts_of_a_batch_add_up_to_its_loss_and_its_gradient(
    trainer: Trainer, changed: dict[str, Any], world: int
) -> None:
    config = TrainConfig(**(QUICK | changed))
    one, gradient = summed(trainer, config, 1)
    several, summed_up = summed(trainer, config, world)  # of 20 processes some have no row
    assert several == pytest.approx(one, abs=1e-5)
    assert torch.allclose(summed_up, gradient, atol=1e-5)


def test_the_loss_of_a_part_is_that_of_a_training_without_draws(trainer: Trainer) -> None:
    config = replace(
        trainer.config, item_dropout=0.0, features_known=1.0, gap_known=1.0, scene_known=1.0, control_known=0.0
    )
    trainer.model.eval()
    loss_of = ParallelLoss(trainer.model, trainer.conditions, config, trainer.log_q, Part(0, 1))
    batch = next(iter(trainer.plan.batches(0, trainer.network.n_items + 1)))
    expected = BatchLoss(trainer.model, trainer.conditions, config, trainer.log_q)(batch)[0].item()
    assert loss_of(batch)[0].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.fleet)])
def test_real_processes_reach_the_weights_of_one(tmp_path: Path, world: int) -> None:
    several, alone = tmp_path / "several", tmp_path / "alone"
    settings = QUICK | {"batch_tokens": 60, "max_epochs": 1 if world == 2 else 3}
    command = [sys.executable, "-m", "tests.support.training_processes", str(several), json.dumps(settings), str(world)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    train(alone, settings)
    one, found = (json.loads((folder / "found.json").read_text()) for folder in (alone, several))
    for kind in ("whole", "parts"):
        for name in ("loss", "valid_ndcg@10"):
            expected = [epoch[name] for epoch in one[kind]]
            assert [epoch[name] for epoch in found[kind]] == pytest.approx(expected, abs=1e-4), (kind, name)
    # On one sample the parts of the table say what the whole says.
    for differences in (one, found):
        assert differences["loss"] < 1e-5
        assert differences["gradient"] < 1e-5
    # The last process is told to end after its third step, and time is up in the sixth of the first process.
    assert found["ends"] == ([] if world == 2 else [[3] * world, [6] * world])
    same(load_tensors(alone / "run" / CHECKPOINT)[0], load_tensors(several / "run" / CHECKPOINT)[0])
    same(*(Shards.open(folder / "parts", "checkpoint").whole() for folder in (alone, several)))


def same(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        if name.startswith("average."):
            assert torch.allclose(weight.float(), others[name].float(), atol=1e-4), name


@pytest.mark.parametrize("name", OF_ONE_PROCESS)
def test_methods_that_need_whole_batches_are_refused(name: str) -> None:
    value: Any = {"teacher": "run", "pretrain_epochs": 2}.get(name, 0.5)
    with pytest.raises(ConfigError, match=f"methods.{name}"):
        check_allowed(TrainConfig(methods={name: value}))


def test_dropout_inside_a_kernel_is_refused() -> None:
    check_allowed(TrainConfig(encoder="gru4rec", network={"layers": 1}))
    with pytest.raises(ConfigError, match="gru4rec"):
        check_allowed(TrainConfig(encoder="gru4rec", network={"layers": 2, "dropout": 0.1}))


@pytest.mark.parametrize(
    "changed", [{"tokenizer": "atomic"}, {"text": "items"}, {"vectors": "items"}, {"negatives": 0}], ids=str
)
def test_an_item_table_in_parts_refuses_what_needs_all_items(changed: dict[str, Any]) -> None:
    check_allowed(TrainConfig(shard_items=True))
    with pytest.raises(ConfigError, match=f"shard_items does not go with {next(iter(changed))}"):
        check_allowed(TrainConfig(shard_items=True, **changed))


def test_a_run_in_parts_resumes_and_opens_in_one_process(tmp_path: Path) -> None:
    dataset, config = tiny_dataset(users=16), TrainConfig(**QUICK, negatives=8, shard_items=True)

    class Interrupted(Exception):  # noqa: N818
        pass

    def interrupt(tick: Tick) -> None:
        if tick.epoch:
            raise Interrupted

    with joined() as processes:
        ShardedTrainer(processes, dataset, Path("data"), tmp_path / "whole", config).fit()
        with pytest.raises(Interrupted):
            ShardedTrainer(processes, dataset, Path("data"), tmp_path / "half", config).fit(report=interrupt)
        resumed = ShardedTrainer(processes, dataset, Path("data"), tmp_path / "half", config, resume=True)
        assert resumed.progress.epoch == 1
        resumed.fit()
    whole, half = (Shards.open(tmp_path / name, "checkpoint").whole() for name in ("whole", "half"))
    assert whole.keys() == half.keys()
    assert all(torch.equal(whole[name], half[name]) for name in whole)
    model = Run.open(tmp_path / "half").model()
    assert torch.equal(model.item.weight, Shards.open(tmp_path / "half", "best").rows("item.weight"))


def test_few_items_refuse_a_table_in_parts(tmp_path: Path) -> None:
    config = TrainConfig(**QUICK, shard_items=True)
    with joined() as processes, pytest.raises(ConfigError, match="set negatives"):
        ShardedTrainer(processes, tiny_dataset(users=16), Path("data"), tmp_path / "run", config)
