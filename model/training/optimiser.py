"""The optimiser, its learning rate and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from model.training.config import TrainConfig

# Linear decay never takes the learning rate below this share of its peak.
LEAST_RATE = 0.02


def build_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Returns AdamW with weight decay on matrices only, not on norms, biases and decay rates.

    An item table in parts (`ItemParts`) has a group of its own, the last one: a fused step does not mix it with others.
    """
    parts = [p for p in model.parameters() if is_in_parts(p)]
    matrices = [p for p in model.parameters() if p.ndim > 1 and not is_in_parts(p)]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if parts:
        groups.append({"params": parts, "weight_decay": config.weight_decay})
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def learning_rate(config: TrainConfig, step: int, done: float) -> float:
    """Returns the learning rate of a step: linear warm-up, then linear decay if the configuration asks for it.

    Args:
        config: Peak rate, warm-up and decay.
        step: Number of the step, from 1.
        done: Share of the training that is over.
    """
    left = 1.0 if config.decay == "none" else max(LEAST_RATE, 1.0 - done)
    return config.learning_rate * min(1.0, step / max(config.warmup_steps, 1)) * left


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, ema: float, step: int) -> None:
    """Moves the averaged weights towards those of the model.

    Early on the average follows closely, so that it does not carry the initial weights along.
    """
    keep = min(ema, (1 + step) / (10 + step))
    torch._foreach_lerp_(own_parts(average.parameters()), own_parts(model.parameters()), 1 - keep)


def is_in_parts(tensor: Tensor) -> bool:
    """Returns whether a tensor is a DTensor, of which this process has a part."""
    return hasattr(tensor, "to_local")


def own_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Returns tensors, and of those in parts what this process has."""
    return [tensor.to_local() if is_in_parts(tensor) else tensor for tensor in tensors]  # type: ignore[attr-defined]
