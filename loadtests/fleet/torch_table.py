"""Trains a few steps of a network with a large item table and notes the peak memory: a part of `torch_memory`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from loadtests.fleet.torch_launch import peak_bytes
from model.network.config import SIZES, NetworkConfig
from model.network.gpt4rec import GPT4Rec
from model.network.item_rows import ItemParts
from model.training.batch_loss import BatchLoss
from model.training.batches import NO_TARGET, Batch
from model.training.conditions import Conditions
from model.training.config import TrainConfig
from model.training.losses import proposal
from model.training.optimiser import build_optimiser, update_average
from model.training.parallel.processes import Processes, joined
from model.training.parallel.sharded_loss import ShardedLoss
from model.training.parallel.sharded_trainer import clip_over_parts
from service.artifact.features import EVENT_TYPES, START_TYPE
from service.cli.outermost import run_command

CODES, SLOTS = 256, 3


def network(items: int) -> tuple[NetworkConfig, torch.Tensor]:
    """Returns a network of size `small` with some items, and paths of their tokens that differ."""
    levels = max(2, int(np.ceil(np.log(items) / np.log(CODES))))
    codes = np.stack(np.unravel_index(np.arange(items), [CODES] * levels), axis=1).astype(np.int64)
    shape = NetworkConfig(
        n_items=items, code_sizes=(CODES,) * levels, n_types=len(EVENT_TYPES), n_context_rows=2, n_slots=SLOTS,
        **SIZES["small"],
    )  # fmt: skip
    return shape, torch.from_numpy(codes)


def batch(items: int, step: int, rows: int = 32, length: int = 64) -> Batch:
    """Returns a batch of random histories."""
    draw = torch.Generator().manual_seed(step)
    item = torch.randint(items, (rows, length + 1), generator=draw)
    kind = torch.zeros(rows, length, dtype=torch.int64)
    first = torch.arange(length) == 0
    time = torch.arange(length).expand(rows, -1) * 3_600_000
    return Batch(
        item=torch.where(first, items + 1, item[:, :-1]), type=torch.where(first, START_TYPE, kind), time_ms=time,
        target=torch.where(first, NO_TARGET, item[:, 1:]), gap_ms=torch.full_like(kind, 3_600_000),
        scene=torch.full_like(kind, -1), user=torch.zeros(rows, dtype=torch.int64), target_type=kind,
    )  # fmt: skip


def train(items: int, steps: int, processes: Processes | None) -> list[float]:
    """Trains with the whole table, or with this process's part of it; returns the losses."""
    torch.manual_seed(0)
    config = TrainConfig(negatives=512)
    shape, codes = network(items)
    part = None if processes is None else ItemParts(items, shape.d_model, processes.device)
    model = GPT4Rec(shape, codes, part)
    average, optimiser = copy.deepcopy(model), build_optimiser(model, config)
    nobody = Conditions(
        features=torch.zeros(1, 0, dtype=torch.int64), scenes=torch.zeros(1, dtype=torch.int64),
        controls=torch.zeros(items, 1, dtype=torch.int64), n_controls=torch.zeros(items, dtype=torch.int64),
        n_slots=SLOTS, max_gap_ms=10**9,
    )  # fmt: skip
    log_q = proposal(np.zeros(1, np.int64), np.ones(items, bool))
    sharded = None if processes is None else ShardedLoss(model, nobody, config, log_q, processes)
    loss_of = sharded or BatchLoss(model, nobody, config, log_q)
    losses = []
    for step in range(1, steps + 1):
        if sharded is not None:
            sharded.step = step
        loss, _, _ = loss_of(batch(items, step))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if processes is None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        else:
            clip_over_parts(model, config.clip_norm, processes)
        optimiser.step()
        update_average(average, model, config.ema, step)
        losses.append(loss.item())
    return losses


def main(
    out: Annotated[Path, typer.Option(help="Folder; each process writes <rank>.json.")],
    items: Annotated[int, typer.Option(help="Rows of the table.")],
    steps: Annotated[int, typer.Option(help="Steps.")] = 3,
    whole: Annotated[bool, typer.Option("--whole", help="The process has all of the table.")] = False,
) -> None:
    """Trains, and writes the peak memory of this process."""
    with joined() as processes:
        losses = train(items, steps, None if whole else processes)
        found = {"peak_bytes": peak_bytes(), "losses": losses}
        (out / f"{processes.rank}.json").write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    run_command(main)
