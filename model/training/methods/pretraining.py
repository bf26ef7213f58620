"""Self-supervised pretraining without next items (S3-Rec, Zhou et al., 2020): the first epochs of a training.

    masked item        the item of a masked event, from the events around it; with its token path, as in the joint loss
    masked attribute   its categories, each scored by the mean vector of its items; without categories its first token
    sequence contrast  two views of the history (contrast.py)

Encoders that attend to a window see both sides of a masked event here; recurrent ones see what came before it. Nothing
is added to the network: fine-tuning goes on with the same weights, optimiser and learning rate.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.training.batches import Batch
from model.training.losses import LossWeights, Sample, joint_loss
from model.training.methods.contrast import contrast_of
from model.training.methods.negatives import SOURCES, Proposals
from model.training.methods.views import sequence_of
from model.training.positions import Setup
from service.artifact.features import GAP_UNKNOWN, START_TYPE

SHARE = 0.2  # of the events, masked


class Pretraining:
    """The loss of a batch in pretraining."""

    def __init__(self, setup: Setup, weights: LossWeights) -> None:
        self.setup, self.weights = setup, weights
        self.settings = setup.config.method_settings()
        self.attributes = attributes_of(setup)
        self._proposals = Proposals.of(setup.log_q)

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the weighted loss, and the dense and codes part of the masked items."""
        settings, device = self.settings, self.setup.log_q.device
        model, n_items = self.setup.model, self.setup.model.config.n_items
        item, masked, length = masked_inputs(batch, n_items)
        target, item = batch.item[masked].to(device), item.to(device)
        sample, rows = None, item
        if self.weights.negatives:
            drawn = SOURCES["mixed"](self._proposals, self.weights.negatives, target).item
            sample = Sample.of(item, target, drawn, n_items)
            rows = sample.place[item]
        table = model.item_table(None if sample is None else sample.rows)
        h = model(
            rows, batch.type.to(device), batch.time_ms.to(device), table,
            masked=masked.to(device), length=length.to(device), rows=None if sample is None else sample.rows,
        )[masked.to(device)]  # fmt: skip
        q = model.query(h, *_nothing_known(len(h), model.config.n_slots, device))
        if not len(target):
            return (zero := q.sum() * 0 + table.sum() * 0), zero, zero
        loss, dense, codes = joint_loss(model, q, table, target, self.weights, self.setup.log_q, sample)
        if settings.pretrain_attribute:
            whole = table if sample is None else model.item_table()
            loss = loss + settings.pretrain_attribute * attribute_loss(q, whole, target, self.attributes.to(device))
        if settings.pretrain_contrast:
            loss = loss + settings.pretrain_contrast * contrast_of(model, batch, device)
        return loss, dense, codes


def masked_inputs(batch: Batch, unknown: int, share: float = SHARE) -> tuple[Tensor, Tensor, Tensor]:
    """Draws which inputs are masked: a share of the events, and one event of each row that has any.

    Returns:
        The items [B, T] with the masked ones unknown, the mask [B, T], and the number of inputs [B].
    """
    sequence = sequence_of(batch, unknown)
    length = sequence.n - 1
    position = torch.arange(batch.item.shape[1])
    event = (position < length[:, None]) & (batch.type != START_TYPE) & (batch.item < unknown)
    drawn = torch.rand(event.shape)
    least = torch.where(event, drawn, 2.0).amin(dim=1, keepdim=True)
    masked = event & ((drawn < share) | (drawn == least))
    return torch.where(masked, unknown, batch.item), masked, length


def attributes_of(setup: Setup) -> Tensor:
    """Returns the attributes [N, most] of each item, from 1 and padded with 0: categories, else the first token."""
    controls = setup.conditions.controls
    if bool((controls > 0).any()):
        flat = torch.cat([torch.zeros(1, dtype=torch.int64), controls.reshape(-1)])
        _, numbered = torch.unique(flat, return_inverse=True)
        attributes: Tensor = numbered[1:].reshape(controls.shape)  # 0, the padding, is the smallest and stays 0
        return attributes
    return setup.model.codes[:, :1].cpu() + 1


def attribute_loss(q: Tensor, table: Tensor, target: Tensor, attributes: Tensor) -> Tensor:
    """Returns the mean cross-entropy of the attributes of the targets.

    Args:
        q: [P, d] queries.
        table: [N + 2, d] item table.
        target: [P] items.
        attributes: [N, most] attributes of each item, from 1 and padded with 0.
    """
    n = int(attributes.max()) + 1
    most = attributes.shape[1]
    of, vectors = attributes.reshape(-1), table[:-2].float().repeat_interleave(most, dim=0)
    count = torch.bincount(of, minlength=n).clamp(min=1)[:, None]
    mean = torch.zeros(n, table.shape[1], device=q.device).index_add(0, of, vectors) / count
    log_p = F.log_softmax((q.float() @ mean.T)[:, 1:], dim=-1)
    own = attributes[target]
    known = own > 0
    chosen = torch.where(known, log_p.gather(1, (own - 1).clamp(min=0)), 0.0)
    each = -chosen.sum(dim=1) / known.sum(dim=1).clamp(min=1)
    loss: Tensor = each.sum() / known.any(dim=1).sum().clamp(min=1)
    return loss


def _nothing_known(n: int, slots: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.zeros(n, slots, dtype=torch.int64, device=device),
        torch.full((n,), GAP_UNKNOWN, dtype=torch.int64, device=device),
    )
