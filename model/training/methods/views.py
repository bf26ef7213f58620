"""Crop, mask and reorder: views of the sequences of a batch (CL4SRec, Xie et al., 2022).

A batch holds inputs and the targets after them, so a view is made of whole sequences of events, and inputs and targets
follow from it: an input can never give away its own target. All draw from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from model.data.dataset import NO_SCENE
from model.training.batches import NO_TARGET, Batch
from service.artifact.features import GAP_UNKNOWN, START_TYPE

# Shares of a sequence that are kept by a crop, masked, and reordered.
CROP, MASK, REORDER = 0.6, 0.3, 0.3


@dataclass(frozen=True)
class Sequence:
    """The rows of a batch as sequences of E = T + 1 events; a start token counts as one.

    Attributes:
        item, type, time_ms, scene: [B, E] of each event.
        target: [B, E] bool, events that carry a loss.
        n: [B] number of events.
        unknown: Index of the unknown item.
    """

    item: Tensor
    type: Tensor
    time_ms: Tensor
    scene: Tensor
    target: Tensor
    n: Tensor
    unknown: int

    def at(self, place: Tensor) -> Sequence:
        """Returns the sequences whose events are those at `place` [B, E]."""
        return replace(
            self,
            **{name: getattr(self, name).gather(1, place) for name in ("item", "type", "time_ms", "scene", "target")},
        )


def sequence_of(batch: Batch, unknown: int) -> Sequence:
    """Returns the inputs of a batch with the last target of each row appended. Every row ends with a target."""
    known = batch.target != NO_TARGET
    inputs = torch.where(known, torch.arange(known.shape[1]), -1).amax(dim=1) + 1
    last = (inputs - 1)[:, None]
    place = torch.arange(known.shape[1] + 1)

    def whole(values: Tensor, targets: Tensor) -> Tensor:
        return torch.where(place >= inputs[:, None], targets.gather(1, last), _longer(values, behind=True))

    return Sequence(
        item=whole(batch.item, batch.target),
        type=whole(batch.type, batch.target_type),
        time_ms=whole(batch.time_ms, batch.time_ms + batch.gap_ms.clamp(min=0)),
        scene=_longer(batch.scene, behind=False, fill=NO_SCENE),
        target=_longer(known, behind=False),
        n=inputs + 1,
        unknown=unknown,
    )


def batch_of(sequence: Sequence, like: Batch) -> Batch:
    """Returns the batch of sequences: every event but the last is an input, and the event after it its target."""
    s = sequence
    real = torch.arange(1, s.item.shape[1]) < s.n[:, None]
    gap = (s.time_ms[:, 1:] - s.time_ms[:, :-1]).clamp(min=0)
    return replace(
        like,
        item=s.item[:, :-1],
        type=s.type[:, :-1],
        time_ms=s.time_ms[:, :-1],
        target=torch.where(s.target[:, 1:] & real, s.item[:, 1:], NO_TARGET),
        gap_ms=torch.where(s.type[:, :-1] == START_TYPE, GAP_UNKNOWN, gap),
        scene=s.scene[:, 1:],
        target_type=s.type[:, 1:],
    )


def crop(sequence: Sequence, share: float = CROP) -> Sequence:
    """Returns one part of each sequence, `share` of its events and at least two, with one that carries a loss."""
    s, place = sequence, torch.arange(sequence.item.shape[1])
    kept = (s.n * share).ceil().long().clamp(min=2)
    first_target = torch.where(s.target, place, len(place)).amin(dim=1)
    low = (first_target - kept + 1).clamp(min=0)
    high = torch.maximum(s.n - kept, low)
    start = low + (torch.rand(len(s.n)) * (high - low + 1)).long().clamp(max=high - low)
    at = torch.minimum(start[:, None] + place, (start + kept - 1)[:, None])
    cropped = s.at(at)
    return replace(cropped, target=cropped.target & (place < kept[:, None]), n=kept)


def mask(sequence: Sequence, share: float = MASK) -> Sequence:
    """Returns the sequences with `share` of the items replaced by the unknown item; none of these carries a loss.

    A sequence keeps its last event, so that one of its events carries a loss.
    """
    s = sequence
    place = torch.arange(s.item.shape[1])
    masked = (torch.rand(s.item.shape) < share) & (s.type != START_TYPE) & (place < s.n[:, None] - 1)
    return replace(s, item=torch.where(masked, s.unknown, s.item), target=s.target & ~masked)


def reorder(sequence: Sequence, share: float = REORDER) -> Sequence:
    """Returns the sequences with the items of a stretch of `share` of their events in another order; times stay."""
    s, place = sequence, torch.arange(sequence.item.shape[1])
    first = (s.type[:, 0] == START_TYPE).long()
    events = s.n - first
    stretch = torch.minimum((events * share).ceil().long().clamp(min=2), events)
    start = first + (torch.rand(len(s.n)) * (events - stretch + 1)).long().clamp(max=events - stretch)
    inside = (place >= start[:, None]) & (place < (start + stretch)[:, None])
    moved = start[:, None] + torch.rand(s.item.shape, dtype=torch.float64) * stretch[:, None]
    order = torch.where(inside, moved, place.double()).argsort(dim=1, stable=True)
    # Numbers drawn inside the stretch lie between its ends, so events outside stay where they are.
    changed = s.at(order)
    return replace(changed, time_ms=s.time_ms, target=s.target)


View = Callable[[Sequence], Sequence]
VIEWS: dict[str, View] = {"crop": crop, "mask": mask, "reorder": reorder}


def any_view(sequence: Sequence) -> Sequence:
    """Returns a view of each sequence, of a kind drawn for it."""
    kind = torch.randint(len(VIEWS), (len(sequence.n),))
    return chosen(kind, [view(sequence) for view in VIEWS.values()])


def chosen(kind: Tensor, views: list[Sequence]) -> Sequence:
    """Returns for each row the sequence of `views` that `kind` [B] names."""
    rows = torch.arange(len(kind))
    names = ("item", "type", "time_ms", "scene", "target", "n")
    picked: dict[str, Any] = {n: torch.stack([getattr(view, n) for view in views])[kind, rows] for n in names}
    return replace(views[0], **picked)


def _longer(values: Tensor, *, behind: bool, fill: int = 0) -> Tensor:
    more = torch.full_like(values[:, :1], fill)
    return torch.cat([values, more] if behind else [more, values], dim=1)
