"""Learned routing: a small scorer chooses the few events that an event reads.

    s_ij = MLP([y_i, k_j]),   K_i = the `network.routed_keys` events of the window with the highest s_ij, and i itself

Roy et al. ("Efficient content-based sparse attention with routing transformers", 2021) choose by clusters; here a
scorer does. What is chosen has no gradient, so the scorer gets that of σ(s) in its place (the straight-through
estimator, Bengio et al., 2013, arXiv 1308.3432). `imbalance` is the auxiliary loss of Fedus et al. ("Switch
transformers", 2021), with events in place of experts: it keeps all from reading the same few events.

A choice between two events with nearly the same score would depend on rounding. So an event fades in over `MARGIN`
above the highest score that is not chosen, and graph and torch give the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE

WIDTH = 8  # units of the scorer
MARGIN = 0.05
OWN = 1e6  # score of the event itself


@dataclass(frozen=True)
class Routed:
    """What a scorer chose.

    Attributes:
        score: [B, T, S] s, `MASK_SCORE` where an event may not be read.
        weight: [B, T, S] 1 for chosen events, less within the margin, 0 for the others.
    """

    score: Tensor
    weight: Tensor


class Router(nn.Module):
    """The scorer of a layer.

    Attributes:
        routed: What was chosen for each chunk of the last pass in training, for the load balance to read; None, and
            nothing is kept, unless it is set to a list.
    """

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.most = min(c.routed_keys, c.window - 1)  # `chosen` needs one that is left out
        self.query = nn.Linear(c.d_model, WIDTH)
        self.key = nn.Linear(c.d_head, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, 1, bias=False)
        self.routed: list[Routed] | None = None

    def forward(self, y: Tensor, key: Tensor, allowed: Tensor, own: Tensor) -> Tensor:
        """Returns how much of each event is read, [B, T, S] from 0 to 1; while training with the gradient of σ(s).

        Args:
            y: [B, T, d] normed inputs of the events that read.
            key: [B, S, d_head] keys, not rotated.
            allowed: [B, T, S] bool, the events that may be read.
            own: [T, S] bool, the event itself, which is always read.
        """
        hidden = F.gelu(self.query(y)[:, :, None] + self.key(key)[:, None])
        score = torch.where(own, OWN, torch.where(allowed, self.out(hidden)[..., 0], MASK_SCORE))
        weight = chosen(score, self.most + 1)
        if not self.training:
            return weight
        if self.routed is not None:
            self.routed.append(Routed(score, weight.detach()))
        share = torch.sigmoid(score)
        return weight.detach() + (share - share.detach())

    def forget(self) -> None:
        """Drops what was chosen before a pass begins."""
        if self.routed is not None:
            self.routed.clear()


def chosen(score: Tensor, most: int) -> Tensor:
    """Returns which of the scores [..., S] are among the `most` highest, as a weight from 0 to 1.

    It is 1 from `MARGIN` above the highest score that is not chosen, and 0 for events that may not be read. S must
    exceed `most`.
    """
    best = score.topk(most + 1, dim=-1).values[..., -1:]
    return ((score - best) / MARGIN).clamp(0, 1)


def imbalance(routed: Routed, reads: Tensor) -> Tensor:
    """Returns S Σ_j f_j P_j, the mean over the rows of a batch: 1 where all events are read alike, more otherwise.

    f_j is the share of the choices that event j got, P_j its mean probability by the scorer, S the number of events.

    Args:
        routed: What was chosen.
        reads: [B, T] bool, the events whose choices count.
    """
    counted = reads[..., None].to(routed.score.dtype)
    known = routed.score > MASK_SCORE
    others = routed.score.masked_fill(routed.score >= OWN, MASK_SCORE)
    weight = routed.weight * (others > MASK_SCORE)
    load = (weight / weight.sum(-1, keepdim=True).clamp(min=1e-6) * counted).sum(1)
    probability = (others.softmax(-1) * (others > MASK_SCORE) * counted).sum(1)
    n = counted.sum(1).clamp(min=1)
    available = (known & reads[..., None]).any(1).sum(-1)
    return (available * (load / n * probability / n).sum(-1)).mean()
