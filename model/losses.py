"""The joint loss: token cross-entropy of every level, and a softmax over next items."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network import GPT4Rec

FULL_SOFTMAX_ITEMS = 5000
SAMPLED_NEGATIVES = 512


def choose_negatives(configured: int, n_items: int) -> int:
    """0 for the full softmax; −1 leaves the choice to the size of the catalogue."""
    if configured >= 0:
        return configured
    return 0 if n_items <= FULL_SOFTMAX_ITEMS else SAMPLED_NEGATIVES


@dataclass(frozen=True)
class LossWeights:
    """`negatives` = 0 takes the full softmax; otherwise that many sampled items, shared by the batch."""

    codes: float = 0.5
    dense: float = 1.0
    negatives: int = 0
    label_smoothing: float = 0.0


def dense_logits(q: Tensor, table: Tensor) -> Tensor:
    """[P, N] scores q · e_item / √d over the catalogue."""
    return (q @ table[:-2].T) * float(q.shape[-1] ** -0.5)


def full_softmax(q: Tensor, table: Tensor, target: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(dense_logits(q, table), target, label_smoothing=smoothing)


def sampled_softmax(
    q: Tensor, table: Tensor, target: Tensor, log_q: Tensor, negatives: int, generator: torch.Generator | None
) -> Tensor:
    """Softmax over the target and `negatives` items drawn from exp(log_q) [N], each weighed by 1/q.

    Noise contrastive estimation by ranking (Ma and Collins, 2018): consistent for any number of negatives, and it
    becomes the full softmax, value and gradient, as they grow. So the target is weighed like the rest, and a
    negative that happens to be a row's target stays: without it the scores of popular items would only rise.
    """
    drawn = torch.multinomial(log_q.exp(), negatives, replacement=True, generator=generator)
    scale = q.shape[-1] ** -0.5
    positive = (q * F.embedding(target, table)).sum(-1, keepdim=True) * scale
    negative = q @ table[drawn].T * scale - log_q[drawn]
    logits = torch.cat([positive - log_q[target][:, None], negative], dim=1)
    normaliser = torch.logsumexp(logits, dim=1) - math.log(negatives + 1)
    loss: Tensor = (normaliser - positive[:, 0]).mean()
    return loss


def joint_loss(
    model: GPT4Rec,
    q: Tensor,
    table: Tensor,
    target: Tensor,
    weights: LossWeights,
    log_q: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, dense part, codes part) for P positions: q [P, d], target [P] item indices."""
    if weights.negatives:
        dense = sampled_softmax(q, table, target, log_q, weights.negatives, None)
    else:
        dense = full_softmax(q, table, target, weights.label_smoothing)
    codes = model.codes[target]
    per_level = [
        F.cross_entropy(logits, codes[:, level], label_smoothing=weights.label_smoothing)
        for level, logits in enumerate(model.path_logits(q, codes))
    ]
    path = torch.stack(per_level).sum()
    return weights.dense * dense + weights.codes * path, dense, path
