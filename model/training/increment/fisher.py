"""The diagonal of the Fisher information: how much each weight matters for what the model predicts.

The gradient of the log-probability of labels that the model itself draws has mean zero at every position, so the
squared gradient of the sum over a batch is, on average, the sum of the squared gradients of its positions. One pass
backward for each batch is therefore enough for the true Fisher information (Martens, 2020; Kunstner et al., 2019), not
only for the empirical one, whose labels are those of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.scoring import dense_logits
from model.training.batch_loss import BatchLoss
from model.training.batches import Batch
from model.training.positions import Positions


def diagonal_fisher(loss: BatchLoss, batches: Iterable[Batch], seed: int) -> dict[str, Tensor]:
    """Returns the mean of the diagonal over the positions of the batches, by the names of the parameters, on the CPU.

    The two parts of the loss count with their weights in it. A sampled softmax predicts among its samples.

    Args:
        loss: The loss of the network; it is put into evaluation mode, without dropout.
        batches: Some batches of the data.
        seed: Seed of the labels and of everything else that a batch draws.
    """
    torch.manual_seed(seed)
    named = {name: p for name, p in loss.model.eval().named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in named.items()}
    positions = 0
    for batch in batches:
        at = loss.positions(batch)
        if not len(at.target):
            continue
        gradients = torch.autograd.grad(_surprise(loss, at), list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            if gradient is not None:
                sums[name] += gradient.square()
        positions += len(at.target)
    return {name: (total / max(positions, 1)).cpu() for name, total in sums.items()}


def _surprise(loss: BatchLoss, at: Positions) -> Tensor:
    """Returns the summed negative log-probability of labels that the model draws.

    Each part is multiplied by the square root of its weight: squared, the parts then add up by their weights.
    """
    total = math.sqrt(loss.weights.dense) * _of_drawn(_dense(loss, at))[1]
    s = loss.model.begin(at.q)
    for level in range(loss.model.config.levels):
        token, surprise = _of_drawn(loss.model.level_logits(level, s))
        total = total + math.sqrt(loss.weights.codes) * surprise
        if level + 1 < loss.model.config.levels:
            s = loss.model.step(level, s, token)
    return total


def _dense(loss: BatchLoss, at: Positions) -> Tensor:
    """Returns the logits [P, candidates] of the softmax over items."""
    if at.sample is None:
        logits = dense_logits(at.q, at.table)
        return logits if loss.model.of_content is None else logits[:, torch.isfinite(loss.log_q)]
    drawn = F.embedding(at.sample.place[at.sample.drawn], at.table)
    log_q = loss.log_q if at.sample.log_q is None else at.sample.log_q
    return at.q @ drawn.T - log_q[at.sample.drawn]


def _of_drawn(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Draws a label [P] from each row of logits; returns them and their summed negative log-probability."""
    drawn = torch.multinomial(logits.detach().float().softmax(dim=-1), 1)[:, 0]
    return drawn, F.cross_entropy(logits.float(), drawn, reduction="sum")
