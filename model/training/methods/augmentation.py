"""Augmentation: some sequences of a batch are trained as a crop, with masked items, or with a stretch reordered.

The views are those of CL4SRec (Xie et al., 2022); here they are trained on next items themselves.
"""

from __future__ import annotations

import torch

from model.training.batches import Batch
from model.training.methods.views import any_view, batch_of, chosen, sequence_of


def augmented(batch: Batch, share: float, unknown: int) -> Batch:
    """Returns the batch with `share` of its sequences replaced by a view; draws from torch's global generator.

    Args:
        batch: The batch.
        share: Probability with which a sequence is replaced.
        unknown: Index of the unknown item, which masked items become.
    """
    if share <= 0:
        return batch
    whole = sequence_of(batch, unknown)
    replaced = (torch.rand(len(whole.n)) < share).long()
    return batch_of(chosen(replaced, [whole, any_view(whole)]), batch)
