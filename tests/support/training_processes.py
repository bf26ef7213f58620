"""Real processes that train a few steps over gloo: `python -m tests.support.training_processes DIR SETTINGS N`.

A command of its own, because a process that has started threads (of polars, of torch) cannot be forked.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.distributed as dist

from model.network.gpt4rec import GPT4Rec
from model.network.item_rows import ItemParts
from model.training.config import TrainConfig
from model.training.optimiser import is_in_parts, own_parts
from model.training.parallel.loss import ParallelLoss
from model.training.parallel.processes import Processes, joined
from model.training.parallel.sharded_loss import ShardedLoss
from model.training.parallel.sharded_trainer import ShardedTrainer
from model.training.parallel.trainer import ParallelTrainer
from model.training.reports import Tick
from model.training.time_limit import TimeLimit
from tests.support.data_builders import tiny_dataset

DEADLINE_S = 120.0


class _NoBoard:
    """Instead of TensorBoard, whose import takes longer than the steps."""

    def _board(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext(SimpleNamespace(add_scalar=lambda *_what: None))


class Whole(_NoBoard, ParallelTrainer):
    pass


class Parts(_NoBoard, ShardedTrainer):
    pass


def train(folder: Path, settings: dict[str, Any]) -> None:
    """Trains as one of the processes that the environment names, or alone: with the item table whole, and in parts.

    Writes `found.json` into the folder: the epochs of both, how far the loss of parts is from that of the whole, and
    with more than two processes the steps at which they stop.
    """
    dataset = tiny_dataset(users=12)
    with joined() as processes:
        trainer = Whole(processes, dataset, Path("data"), folder / "run", TrainConfig(**settings))
        whole = trainer.fit().history
        config = TrainConfig(**settings, negatives=8, shard_items=True)
        sharded = Parts(processes, dataset, Path("data"), folder / "parts", config)
        loss, gradient = differences(sharded)
        parts = sharded.fit().history
        short = TrainConfig(**settings | {"batch_tokens": 24})
        ways = ("told", "late") if processes.world > 2 else ()
        ends = [stopped_after(processes, folder / way, short, way) for way in ways]
    if processes.is_first:
        found = {"whole": whole, "parts": parts, "loss": loss, "gradient": gradient, "ends": ends}
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


def stopped_after(processes: Processes, folder: Path, config: TrainConfig, how: str) -> list[int]:
    """Returns the step after which each process stops: the last one is told to, or the time of the first one ends.

    By the clocks of the others time ends earlier.
    """
    last, steps = processes.rank == processes.world - 1, [0]

    def note(_tick: Tick) -> None:
        steps[0] += 1
        if how == "told" and last and steps[0] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    limit = TimeLimit(1.0, clock=lambda: 0.0 if processes.is_first and steps[0] < 5 else 61.0 if steps[0] > 1 else 0.0)
    trainer = Whole(processes, tiny_dataset(users=12), Path("data"), folder, config)
    with contextlib.suppress(KeyboardInterrupt):
        trainer.fit(limit=limit if how == "late" else None, report=note)
    return processes.gathered(steps[0])


def differences(trainer: ShardedTrainer) -> tuple[float, float]:
    """Returns how far loss and gradient of a batch are from those of the whole table, on the same sample."""
    item, processes = cast(ItemParts, trainer.model.item), trainer.processes
    whole = GPT4Rec(trainer.network, trainer.model.codes)
    state = {
        name: own.full_tensor() if name == "item.weight" else own for name, own in trainer.model.state_dict().items()
    }
    whole.load_state_dict(state)
    losses: list[list[float]] = []
    batch = next(iter(trainer.plan.batches(0, trainer.network.n_items + 1)))
    for kind, model in ((ShardedLoss, trainer.model.train()), (ParallelLoss, whole.train())):
        loss_of = kind(model, trainer.conditions, trainer.config, trainer.log_q, processes)
        loss_of.step = 3
        parts = loss_of(batch)
        parts[0].backward()  # type: ignore[no-untyped-call]
        processes.sum_gradients([p.grad for p in model.parameters() if p.grad is not None and not is_in_parts(p)])
        losses.append(processes.sum(torch.stack(parts).detach()).tolist())
    own_rows = slice(item.low, item.high)
    gradients = [
        (grad - (other.grad[own_rows] if is_in_parts(p) else other.grad)).abs().max().item()
        for p, other in zip(trainer.model.parameters(), whole.parameters(), strict=True)
        if p.grad is not None and other.grad is not None
        for grad in own_parts([p.grad])
    ]
    trainer.model.zero_grad()
    worst = torch.tensor(max(gradients))
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    return max(abs(a - b) for a, b in zip(*losses, strict=True)), worst.item()


def _one_of(folder: Path, rank: int, world: int, port: int, settings: dict[str, Any]) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    torch.set_num_threads(1)
    train(folder, settings)


def main(folder: Path, settings: dict[str, Any], world: int) -> None:
    """Trains with some processes."""
    fork = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [fork.Process(target=_one_of, args=(folder, rank, world, port, settings)) for rank in range(world)]
    for process in running:
        process.start()
    for process in running:
        process.join(DEADLINE_S)
    for process in running:
        process.kill()
    sys.exit(any(process.exitcode for process in running))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]))
