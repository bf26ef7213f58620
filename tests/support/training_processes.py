"""Two real processes that train a few steps over gloo: `python -m tests.support.training_processes DIR SETTINGS`.

A command of its own, because a process that has started threads (of polars, of torch) cannot be forked.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # before the processes are forked, so that each need not import it

from model.training.config import TrainConfig
from model.training.parallel.processes import joined
from model.training.parallel.trainer import ParallelTrainer
from tests.support.data_builders import tiny_dataset

DEADLINE_S = 120.0


def train(folder: Path, settings: dict[str, Any]) -> None:
    """Trains as one of the processes that the environment names, or alone; writes `losses.json` into the folder."""
    with joined() as processes:
        config = TrainConfig(**settings)
        trainer = ParallelTrainer(processes, tiny_dataset(users=16), Path("data"), folder / "run", config)
        history = trainer.fit().history
    if processes.is_first:
        (folder / "losses.json").write_text(json.dumps(history), encoding="utf-8")


def _one_of_two(folder: Path, rank: int, port: int, settings: dict[str, Any]) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    torch.set_num_threads(1)
    train(folder, settings)


def main(folder: Path, settings: dict[str, Any]) -> None:
    """Trains with two processes."""
    fork = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [fork.Process(target=_one_of_two, args=(folder, rank, port, settings)) for rank in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(DEADLINE_S)
    for process in running:
        process.kill()
    sys.exit(any(process.exitcode for process in running))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
