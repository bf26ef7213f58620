"""Adversarial training on item vectors (Miyato et al., 2017; APR, He et al., 2018).

    loss(E) + λ loss(E + Δ)        Δ_i = ε · ℓ · g_i / |g_i|, g = ∇_E loss

ℓ is the mean length of the item vectors. Both passes draw the same dropout, negatives and context: the generators are
set back before the second. Δ enters wherever an item vector does, in the history and in the softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def worst_change(loss: Tensor, table: Tensor, size: float) -> Tensor:
    """Returns the change Δ [R + 2, d] of an item table that raises a loss the most, to first order.

    Args:
        loss: The loss; its graph is kept.
        table: [R + 2, d] item table that the loss was computed with.
        size: Length of each row's change, relative to the mean length of the rows.
    """
    (gradient,) = torch.autograd.grad(loss, table, retain_graph=True)
    length = table.detach().norm(dim=1).mean()
    change: Tensor = size * length * gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return change


@contextmanager
def repeated_draws(state: tuple[Tensor, list[Tensor]]) -> Iterator[None]:
    """Draws the same numbers again, and goes on after them with those that follow anyway."""
    after = generator_state()
    _set(state)
    yield
    _set(after)


def generator_state() -> tuple[Tensor, list[Tensor]]:
    """Returns the state of torch's global generators, on the CPU and on every GPU."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
