"""The loss of a process that has a part of the item table."""

from __future__ import annotations

import torch
from torch import Tensor

from model.network.item_rows import ItemParts
from model.training.batch_loss import Drawn
from model.training.losses import Sample, Softmax
from model.training.parallel.loss import ParallelLoss
from model.training.parallel.shared_softmax import SharedSoftmax


class ShardedLoss(ParallelLoss):
    """Looks up the rows that the whole batch needs, and scores the negatives where their rows are."""

    _softmax: SharedSoftmax | None = None

    def table(
        self,
        drawn: Drawn,  # noqa: ARG002 - of the interface
        item: Tensor,
        needed: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None, Sample | None]:
        """Returns the rows of the inputs and targets of all processes, and prepares the softmax."""
        whole, parts = self._whole, self.model.item
        assert whole is not None and whole.negatives is not None and isinstance(parts, ItemParts)  # noqa: S101, PT018 - from `__call__` and the checks of the configuration
        n, device = self.n_items, item.device
        used = torch.cat([whole.item.flatten(), whole.batch.target[whole.at]]).to(device)
        rows = torch.unique(used[used < n])
        beside = torch.arange(n, n + 2, device=device)
        negatives = whole.negatives.item
        own = negatives[(negatives >= parts.low) & (negatives < parts.high)]
        asked = torch.cat([rows, beside])
        found, vectors = parts.together(asked, own)
        table = torch.cat([self.model.described(found[:-2], rows), found[-2:]])
        self._softmax = SharedSoftmax(
            vectors=self.model.described(vectors, own),
            log_q=whole.negatives.log_q[own],
            drawn=len(negatives),
            log_q_of=whole.negatives.log_q,
            positions=int(whole.at.sum()),
            first=int(whole.at[: self._first_row].sum()),
            positive=table[torch.searchsorted(asked, needed)],
        )
        return table, torch.searchsorted(asked, item), rows, None

    def softmax(self) -> Softmax | None:
        """Returns the softmax over the sample that `table` has prepared."""
        return self._softmax
