"""The sampled softmax where the item table is in parts: each process scores its rows of the shared sample.

Queries travel to the rows instead of rows to the queries. Every process scores the queries of the whole batch against
the negatives whose rows it has; the sums of exponentials are added up over processes, after the largest logit of all is
taken off, so the normaliser is that of `model.training.losses.sampled_softmax`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from model.network.item_rows import summed_over_processes


@dataclass(frozen=True)
class SharedSoftmax:
    """The negatives of a batch, of which this process has a part.

    Attributes:
        vectors: [m, d] those whose rows this process has.
        log_q: [m] their log-probabilities under the proposal.
        drawn: Negatives of all processes.
        log_q_of: [N] log-probabilities of all items.
        positions: Positions of the whole batch that carry a loss.
        first: The first of them that this process has; those that follow are of its queries.
        positive: [P, d] vectors of the targets.
    """

    vectors: Tensor
    log_q: Tensor
    drawn: int
    log_q_of: Tensor
    positions: int
    first: int
    positive: Tensor

    def __call__(self, q: Tensor, target: Tensor) -> Tensor:
        """Returns this process's share of the mean loss of the whole batch; see `sampled_softmax`.

        Args:
            q: [P, d] queries of this process.
            target: [P] their targets.
        """
        own = torch.arange(self.first, self.first + len(q), device=q.device)
        everyone = torch.zeros(self.positions, q.shape[1], dtype=q.dtype, device=q.device).index_copy(0, own, q)
        logits = (summed_over_processes(everyone) @ self.vectors.T).float() - self.log_q
        with torch.no_grad():
            lowest = torch.full((len(logits), 1), -torch.inf, device=logits.device)
            largest = torch.cat([logits, lowest], dim=1).amax(dim=1)
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        total = summed_over_processes(torch.exp(logits - largest[:, None]).sum(dim=1))
        negatives = (total.log() + largest)[own]
        score = (q * self.positive).float().sum(-1)
        normaliser = torch.logaddexp(negatives, score - self.log_q_of[target]) - math.log(self.drawn + 1)
        loss: Tensor = (normaliser - score).sum() / max(self.positions, 1)
        return loss
