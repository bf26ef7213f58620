"""The memory that a training step needs beside its weights."""

from __future__ import annotations

import torch

from model.training.trainer import Trainer


def kept_bytes(trainer: Trainer) -> int:
    """Returns the bytes that the forward pass of one batch keeps for the backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(0)
    trainer.model.train()
    batch = next(iter(trainer.plan.batches(0, trainer.network.n_items + 1)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.loss_of(batch)
    assert torch.isfinite(loss)  # noqa: S101
    return sum(kept.values())
