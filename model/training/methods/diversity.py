"""The diversity regulariser −λ Σ_{i≠j} log(1 − sim(h_i, h_j)): what users are asked for should differ.

sim is the cosine of the queries of two positions. The sum is a mean over the pairs here, so that λ does not depend on
the size of a batch. Positions of one user are not compared: their queries are alike for good reason.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.training.methods.base import Term
from model.training.positions import Positions

MOST = 256  # positions of a batch that are compared
LEAST_DISTANCE = 1e-3  # 1 − sim is no less, so that equal queries cost a bounded loss


class Diversity(Term):
    """The regulariser of a batch."""

    def __call__(self, at: Positions) -> Tensor:
        """Returns the mean of −log(1 − sim) over pairs of positions of different users."""
        user = at.batch.user.to(at.at.device)[:, None].expand(at.at.shape)[at.at]
        n = len(user)
        some = torch.linspace(0, n - 1, min(n, MOST), device=user.device).long() if n else user
        return repulsion(at.q[some], user[some])


def repulsion(q: Tensor, user: Tensor) -> Tensor:
    """Returns the mean of −log(1 − cos(q_i, q_j)) over pairs of different users; 0 without such a pair.

    Args:
        q: [P, d] queries.
        user: [P] their users.
    """
    unit = F.normalize(q.float(), dim=-1)
    cost = -torch.log((1 - unit @ unit.T).clamp(min=LEAST_DISTANCE))
    other = user[:, None] != user[None, :]
    return (cost * other).sum() / other.sum().clamp(min=1)
