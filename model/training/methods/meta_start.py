"""A meta-learned start of new items: first-order MAML (Finn et al., 2017) over items as tasks.

Some targets of a batch that occur more than once are treated as new. Each starts from the unknown item's vector s,
takes one step of length α on half of its positions (its support), and is judged on the others (its query):

    e = s − α ∇ L_support(s)        loss: L_query(e), with ∂e/∂s taken as the identity

Only s is moved. It is the vector of items that a model does not know, and the first one of new items in an increment
that have neither content nor neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.scoring import dense_logits
from model.training.methods.base import Term
from model.training.positions import Positions

TASKS = 16  # items of a batch that are treated as new


class MetaStart(Term):
    """The loss of items that have learned for one step."""

    def __call__(self, at: Positions) -> Tensor:
        """Returns the mean query loss of the tasks; 0 where no target occurs twice."""
        row = at.target if at.sample is None else at.sample.place[at.target]
        item, count = torch.unique(row, return_counts=True)
        order = count.argsort(descending=True, stable=True)[:TASKS]
        tasks = item[order[count[order] >= 2]].tolist()
        start = self.model.item.weight[-2]
        q, table, rate = at.q.detach(), at.table.detach(), self.settings.meta_rate
        losses = [adapted_loss(start, q, table, row, task, rate) for task in tasks]
        return torch.stack(losses).mean() if losses else start.sum() * 0


def adapted_loss(start: Tensor, q: Tensor, table: Tensor, target: Tensor, item: int, rate: float) -> Tensor:
    """Returns the query loss of one item after a step from the start on its support.

    Args:
        start: [d] the vector that new items start from.
        q: [P, d] queries; those with this target are support and query in turn.
        table: [R + 2, d] item table.
        target: [P] targets as rows of the table.
        item: Row of the item.
        rate: Length α of the step.
    """
    own = q[target == item]
    support, query = own[::2], own[1::2]
    first = start.detach().requires_grad_()
    (step,) = torch.autograd.grad(_loss(first, support, table, item), first)
    return _loss(start - rate * step, query, table, item)


def _loss(vector: Tensor, q: Tensor, table: Tensor, item: int) -> Tensor:
    """Returns the softmax loss of an item with another vector than its own."""
    logits = dense_logits(q, table).float()
    own = F.one_hot(torch.tensor(item, device=q.device), logits.shape[1]).bool()
    logits = torch.where(own, (q @ vector).float()[:, None], logits)
    return F.cross_entropy(logits, torch.full((len(q),), item, device=q.device))
