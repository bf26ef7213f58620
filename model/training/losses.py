"""The joint loss: token cross-entropy of every level, and a softmax over next items."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.gpt4rec import GPT4Rec
from model.network.scoring import dense_logits
from service.artifact.array_types import IntArray

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


def full_softmax(q: Tensor, table: Tensor, target: Tensor, smoothing: float, among: Tensor | None = None) -> Tensor:
    """Over the catalogue, or the items of the mask `among` [N] alone, which every target is one of."""
    logits = dense_logits(q, table)
    if among is not None:
        logits, target = logits[:, among], (torch.cumsum(among, 0) - 1)[target]
    return F.cross_entropy(logits, target, label_smoothing=smoothing)


def proposal(item: IntArray, among: npt.NDArray[np.bool_]) -> Tensor:
    """[N] log-probabilities to draw negatives with: half uniform over the mask `among` [N], half by how often items are
    among `item`, which are all in the mask."""
    count = np.bincount(item, minlength=len(among))
    share = 0.5 / max(among.sum(), 1) + 0.5 * count / max(len(item), 1)
    return torch.from_numpy(np.log(share, out=np.full(len(among), -np.inf), where=among)).float()


def draw_negatives(log_q: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """[n] items drawn from exp(log_q) [N], with replacement."""
    return torch.multinomial(log_q.exp(), n, replacement=True, generator=generator)


def sampled_softmax(
    q: Tensor, positive: Tensor, negative: Tensor, log_q_positive: Tensor, log_q_negative: Tensor
) -> Tensor:
    """Softmax of q [P, d] over the targets' embeddings [P, d] and n drawn ones [n, d], each weighed by 1 / its
    probability of being drawn, exp(log_q) [P] and [n].

    Noise contrastive estimation by ranking (Ma and Collins, 2018): consistent for any number of negatives, and it
    becomes the full softmax, value and gradient, as they grow. So the target is weighed like the rest, and a
    negative that happens to be a row's target stays: without it the scores of popular items would only rise.
    """
    wanted = (q * positive).sum(-1)
    logits = torch.cat([(wanted - log_q_positive)[:, None], q @ negative.T - log_q_negative], dim=1)
    normaliser = torch.logsumexp(logits, dim=1) - math.log(len(negative) + 1)
    loss: Tensor = (normaliser - wanted).mean()
    return loss


@dataclass(frozen=True)
class Sample:
    """The rows of the item table that a batch needs, so that a step does not depend on the size of the catalogue.

    rows   [R] items, ascending: those of the batch and the drawn ones
    place  [N + 2] row of an item in that table; the unknown item and the start token follow its items
    drawn  [n] the negatives
    """

    rows: Tensor
    place: Tensor
    drawn: Tensor

    @classmethod
    def of(cls, item: Tensor, target: Tensor, drawn: Tensor, n_items: int) -> Sample:
        """For inputs `item` (any shape, up to n_items + 1), targets [P] and negatives [n]."""
        needed = torch.zeros(n_items + 2, dtype=torch.bool, device=item.device)
        for used in (item.reshape(-1), target, drawn):
            needed[used] = True
        rows = needed[:n_items].nonzero()[:, 0]
        place = torch.zeros(n_items + 2, dtype=torch.int64, device=item.device)
        place[rows] = torch.arange(len(rows), device=item.device)
        place[n_items:] = len(rows) + torch.arange(2, device=item.device)
        return cls(rows, place, drawn)


def joint_loss(
    model: GPT4Rec,
    q: Tensor,
    table: Tensor,
    target: Tensor,
    weights: LossWeights,
    log_q: Tensor,
    sample: Sample | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, dense part, codes part) for P positions: q [P, d], target [P] item indices, log_q [N], −∞ for items that
    content stands in for (`ItemContentGate.stood_in`), which neither softmax has. With a `sample` the softmax is over
    its negatives and `table` holds its rows, otherwise over the catalogue."""
    if sample is not None:
        positive, negative = (F.embedding(sample.place[items], table) for items in (target, sample.drawn))
        dense = sampled_softmax(q, positive, negative, log_q[target], log_q[sample.drawn])
    else:
        among = None if model.of_content is None else torch.isfinite(log_q)
        dense = full_softmax(q, table, target, weights.label_smoothing, among)
    codes = model.codes[target]
    per_level = [
        F.cross_entropy(logits, codes[:, level], label_smoothing=weights.label_smoothing)
        for level, logits in enumerate(model.path_logits(q, codes))
    ]
    path = torch.stack(per_level).sum()
    return weights.dense * dense + weights.codes * path, dense, path
