"""Training batches with masked events, for encoders of the task "masked"."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.data.dataset import NO_SCENE
from model.training.batches import NO_TARGET, Batch
from service.artifact.features import GAP_UNKNOWN

SHARE = 0.2  # of a history's events, masked in each batch


def mask_events(batch: Batch, share: float = SHARE) -> Batch:
    """Turns a batch for next-item prediction into one for masked prediction.

    The last target of each row becomes an event of its own. It and a random share of the others are masked and become
    the targets. Start tokens and context events are never masked, because they are no targets. Draws from torch's
    global generator.

    Args:
        batch: [B, T] batch of `BatchPlan.batches`.
        share: Share of the events that is masked, besides the last.

    Returns:
        [B, T + 1] batch with `masked` and `length`.
    """
    known = batch.target != NO_TARGET
    position = torch.arange(known.shape[1])
    last = torch.where(known, position, -1).amax(dim=1, keepdim=True)  # the input before the last target
    after = torch.arange(known.shape[1] + 1)
    gap = batch.gap_ms.clamp(min=0)

    def longer(values: Tensor, targets: Tensor) -> Tensor:
        """Returns the inputs with the last target appended."""
        return torch.where(after == last + 1, targets.gather(1, last), _padded(values))

    is_target = torch.cat([torch.zeros_like(known[:, :1]), known], dim=1)
    masked = is_target & ((torch.rand(is_target.shape) < share) | (after == last + 1))
    item = longer(batch.item, batch.target)
    kind = longer(batch.type, batch.target_type)
    return replace(
        batch,
        item=item,
        type=kind,
        time_ms=longer(batch.time_ms, batch.time_ms + gap),
        target=torch.where(masked, item, NO_TARGET),
        target_type=kind,
        gap_ms=torch.full_like(item, GAP_UNKNOWN),
        scene=torch.cat([torch.full_like(item[:, :1], NO_SCENE), batch.scene], dim=1),
        masked=masked,
        length=last[:, 0] + 2,
    )


def _padded(values: Tensor) -> Tensor:
    return torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)
