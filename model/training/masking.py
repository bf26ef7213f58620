"""Training batches with hidden events, for encoders that are asked for those."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.data.dataset import NO_SCENE
from model.training.batches import NO_TARGET, Batch
from service.artifact.features import GAP_UNKNOWN

SHARE = 0.2  # of the events of a history, hidden at a time


def hide(batch: Batch, share: float = SHARE) -> Batch:
    """The batch with its last targets as events of their own, [B, T + 1]; those and a `share` of the others are hidden,
    and are what is asked for. Only events that are targets anyway are: a start token and what stands before a cut
    never. Random by torch's global generator."""
    known = batch.target != NO_TARGET
    place = torch.arange(known.shape[1])
    last = torch.where(known, place, -1).amax(dim=1, keepdim=True)  # input that comes before the last target
    after = torch.arange(known.shape[1] + 1)
    gap = batch.gap_ms.clamp(min=0)

    def longer(values: Tensor, targets: Tensor) -> Tensor:
        """Inputs, and the last target behind them."""
        return torch.where(after == last + 1, targets.gather(1, last), _padded(values, 0))

    is_target = torch.cat([torch.zeros_like(known[:, :1]), known], dim=1)
    asked = is_target & ((torch.rand(is_target.shape) < share) | (after == last + 1))
    item = longer(batch.item, batch.target)
    kind = longer(batch.type, batch.target_type)
    return replace(
        batch,
        item=item,
        type=kind,
        time_ms=longer(batch.time_ms, batch.time_ms + gap),
        target=torch.where(asked, item, NO_TARGET),
        target_type=kind,
        gap_ms=torch.full_like(item, GAP_UNKNOWN),
        scene=torch.cat([torch.full_like(item[:, :1], NO_SCENE), batch.scene], dim=1),
        asked=asked,
        length=last[:, 0] + 2,
    )


def _padded(values: Tensor, with_: int) -> Tensor:
    return torch.cat([values, torch.full_like(values[:, :1], with_)], dim=1)
