"""The joint loss: cross-entropy of the tokens of every level, and a softmax over next items.

`joint_loss` is what the trainer calls; another loss is added there, with its weight in `LossWeights`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.gpt4rec import GPT4Rec
from model.network.scoring import dense_logits
from service.artifact.array_types import IntArray

# The logits of every level, of a network for queries [P, d] and token paths [P, levels].
Paths = Callable[[GPT4Rec, Tensor, Tensor], list[Tensor]]
# The mean loss over items of queries [P, d] and their targets [P].
Softmax = Callable[[Tensor, Tensor], Tensor]

FULL_SOFTMAX_ITEMS = 5000
SAMPLED_NEGATIVES = 512
MULTINOMIAL_ITEMS = 1 << 24  # the most that torch draws from


def choose_negatives(configured: int, n_items: int) -> int:
    """Returns the number of negatives, 0 for the full softmax; `configured` = −1 decides by the catalogue's size."""
    if configured >= 0:
        return configured
    return 0 if n_items <= FULL_SOFTMAX_ITEMS else SAMPLED_NEGATIVES


@dataclass(frozen=True)
class LossWeights:
    """What the joint loss is made of.

    Attributes:
        codes: Weight of the token cross-entropy.
        dense: Weight of the softmax over items.
        negatives: Sampled items that a batch shares; 0 for the full softmax.
        label_smoothing: Of both parts; the sampled softmax has none.
    """

    codes: float = 0.5
    dense: float = 1.0
    negatives: int = 0
    label_smoothing: float = 0.0


def mean_cross_entropy(logits: Tensor, target: Tensor, smoothing: float, of: int | None = None) -> Tensor:
    """Returns the mean cross-entropy of targets [P]; `of` is what their sum is divided by, None: by P.

    A process that has a part of a batch divides by the positions of the whole batch.
    """
    if of is None:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    return F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum") / of


def full_softmax(
    q: Tensor,
    table: Tensor,
    target: Tensor,
    smoothing: float,
    candidates: Tensor | None = None,
    of: int | None = None,
) -> Tensor:
    """Returns the mean cross-entropy of the targets over the catalogue.

    Args:
        q: [P, d] queries.
        table: [N + 2, d] item table.
        target: [P] item indices.
        smoothing: Label smoothing.
        candidates: [N] bool, the items of the softmax, with every target among them; None for all items.
        of: See `mean_cross_entropy`.
    """
    logits = dense_logits(q, table).float()  # sums in float32 where products are in bfloat16
    if candidates is not None:
        logits, target = logits[:, candidates], (torch.cumsum(candidates, 0) - 1)[target]
    return mean_cross_entropy(logits, target, smoothing, of)


def proposal(item: IntArray, candidates: npt.NDArray[np.bool_]) -> Tensor:
    """Returns the log-probabilities [N] with which negatives are drawn: half uniform, half by frequency.

    Args:
        item: [events] item indices of the training events, all of them candidates.
        candidates: [N] bool, the items that may be drawn; the others get −∞.
    """
    count = np.bincount(item, minlength=len(candidates))
    share = 0.5 / max(candidates.sum(), 1) + 0.5 * count / max(len(item), 1)
    return torch.from_numpy(np.log(share, out=np.full(len(candidates), -np.inf), where=candidates)).float()


def draw_negatives(log_q: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws n items from exp(log_q) [N], with replacement."""
    if len(log_q) <= MULTINOMIAL_ITEMS:
        return torch.multinomial(log_q.exp(), n, replacement=True, generator=generator)
    below = log_q.double().exp().cumsum(dim=0)
    drawn = torch.rand(n, dtype=torch.float64, device=log_q.device, generator=generator) * below[-1]
    return torch.searchsorted(below, drawn, right=True).clamp(max=len(log_q) - 1)


def sampled_softmax(
    q: Tensor,
    positive: Tensor,
    negative: Tensor,
    log_q_positive: Tensor,
    log_q_negative: Tensor,
    of: int | None = None,
) -> Tensor:
    """Returns the mean softmax loss of the targets over themselves and n sampled negatives.

    This is noise contrastive estimation by ranking (Ma and Collins, 2018). It is consistent for any number of
    negatives, and value and gradient approach the full softmax as their number grows. Every item is therefore weighted
    by 1 / (its probability of being drawn), the target as well, and a negative that is also a row's target stays:
    without it the scores of popular items would only rise.

    Args:
        q: [P, d] queries.
        positive: [P, d] embeddings of the targets.
        negative: [n, d] embeddings of the negatives, shared by all positions.
        log_q_positive: [P] log-probabilities of the targets under the proposal.
        log_q_negative: [n] log-probabilities of the negatives under the proposal.
        of: See `mean_cross_entropy`.
    """
    score = (q * positive).float().sum(-1)
    logits = torch.cat([(score - log_q_positive)[:, None], (q @ negative.T).float() - log_q_negative], dim=1)
    normaliser = torch.logsumexp(logits, dim=1) - math.log(len(negative) + 1)
    loss: Tensor = (normaliser - score).mean() if of is None else (normaliser - score).sum() / of
    return loss


@dataclass(frozen=True)
class Sample:
    """The rows of the item table that a batch needs, so that the cost of a step does not grow with the catalogue.

    Attributes:
        rows: [R] item indices, ascending: inputs, targets and negatives of the batch.
        place: [N + 2] row of each item in the table of `rows`; the unknown item and the start token come last.
        drawn: [n] item indices of the negatives.
        log_q: [N] log-probabilities with which they were drawn; None: those of the default proposal.
    """

    rows: Tensor
    place: Tensor
    drawn: Tensor
    log_q: Tensor | None = None

    @classmethod
    def of(cls, item: Tensor, target: Tensor, drawn: Tensor, n_items: int, log_q: Tensor | None = None) -> Sample:
        """Collects the rows for inputs `item` (any shape, up to n_items + 1), targets [P] and negatives `drawn` [n]."""
        needed = torch.zeros(n_items + 2, dtype=torch.bool, device=item.device)
        for used in (item.reshape(-1), target, drawn):
            needed[used] = True
        rows = needed[:n_items].nonzero()[:, 0]
        place = torch.zeros(n_items + 2, dtype=torch.int64, device=item.device)
        place[rows] = torch.arange(len(rows), device=item.device)
        place[n_items:] = len(rows) + torch.arange(2, device=item.device)
        return cls(rows, place, drawn, log_q)


def joint_loss(
    model: GPT4Rec,
    q: Tensor,
    table: Tensor,
    target: Tensor,
    weights: LossWeights,
    log_q: Tensor,
    sample: Sample | None = None,
    paths: Paths = GPT4Rec.path_logits,
    *,
    of: int | None = None,
    softmax: Softmax | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the weighted loss of P positions and its two parts: (loss, dense part, codes part).

    Args:
        model: The network, for its decoder and codes.
        q: [P, d] queries.
        table: [N + 2, d] item table; with a `sample` [R + 2, d], the rows of the sample.
        target: [P] item indices.
        weights: Weights of the parts, label smoothing.
        log_q: [N] log-probabilities of the proposal; −∞ for items that no softmax may contain
            (`ItemContentGate.unseen_with_content`).
        sample: Rows and negatives of the sampled softmax; None for the softmax over the catalogue.
        paths: Returns the logits of every level for queries and token paths.
        of: See `mean_cross_entropy`.
        softmax: Computes the softmax over items, where the table is in parts; None computes it from `table`.
    """
    if softmax is not None:
        dense = softmax(q, target)
    elif sample is not None:
        positive, negative = (F.embedding(sample.place[items], table) for items in (target, sample.drawn))
        drawn_by = log_q if sample.log_q is None else sample.log_q
        dense = sampled_softmax(q, positive, negative, drawn_by[target], drawn_by[sample.drawn], of)
    else:
        candidates = None if model.of_content is None else torch.isfinite(log_q)
        dense = full_softmax(q, table, target, weights.label_smoothing, candidates, of)
    codes = model.codes[target]
    per_level = [
        mean_cross_entropy(logits.float(), codes[:, level], weights.label_smoothing, of)
        for level, logits in enumerate(paths(model, q, codes))
    ]
    path = torch.stack(per_level).sum()
    return weights.dense * dense + weights.codes * path, dense, path
