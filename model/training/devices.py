"""The device that a process trains on; the one place where it is chosen."""

from __future__ import annotations

import os

import torch

from model.errors import RunError


def started_by_torchrun() -> bool:
    """Returns whether a launcher such as torchrun has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def device_of() -> torch.device:
    """Returns the device that a process trains on: its card, or the CPU where there is none.

    Raises:
        RunError: There are more processes on this machine than cards.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if not started_by_torchrun():
        return torch.device("cuda")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank >= torch.cuda.device_count():
        raise RunError(
            f"process {local_rank} of this machine has no card: there are {torch.cuda.device_count()}",
            fix="start at most one process a card: torchrun --nproc-per-node",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
