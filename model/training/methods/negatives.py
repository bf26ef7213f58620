"""Where the negatives of a sampled softmax come from.

Each source returns items and the log-probabilities with which it draws every item; `sampled_softmax` corrects the
scores by them (log-Q correction, Yi et al., 2019), so that all sources estimate the same softmax, some better than
others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.training.losses import SAMPLED_NEGATIVES, choose_negatives, draw_negatives


@dataclass(frozen=True)
class Proposals:
    """What items are drawn by.

    Attributes:
        mixed: [N] log-probabilities, half uniform and half by popularity; −∞ for items that are no candidates.
        popular: [N] by popularity alone; −∞ for items without events.
        uniform: [N] equal for all candidates.
    """

    mixed: Tensor
    popular: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, mixed: Tensor) -> Proposals:
        """Takes the default proposal apart: it is half uniform and half popular."""
        candidates = torch.isfinite(mixed)
        even = candidates.double() / candidates.sum().clamp(min=1)
        popular = (2 * mixed.double().exp() - even).clamp(min=0)
        popular = torch.where(popular > 1e-6 * even, popular, 0.0)  # rounding of items without events
        popular = popular / popular.sum().clamp(min=1e-30)
        return cls(mixed, popular.log().to(mixed), even.log().to(mixed))


@dataclass(frozen=True)
class Negatives:
    """The negatives of a batch.

    Attributes:
        item: [n] items.
        log_q: [N] log-probabilities with which they were drawn.
    """

    item: Tensor
    log_q: Tensor


def _mixed(p: Proposals, n: int, _target: Tensor) -> Negatives:
    return Negatives(draw_negatives(p.mixed, n), p.mixed)


def _uniform(p: Proposals, n: int, _target: Tensor) -> Negatives:
    return Negatives(draw_negatives(p.uniform, n), p.uniform)


def _popular(p: Proposals, n: int, _target: Tensor) -> Negatives:
    return Negatives(draw_negatives(p.popular, n), p.popular)


def _batch(p: Proposals, n: int, target: Tensor) -> Negatives:
    """Targets of the batch are events of the log, so they are drawn by popularity."""
    if not len(target):
        return _popular(p, n, target)
    return Negatives(target[torch.randint(len(target), (n,)).to(target.device)], p.popular)


def _batch_mixed(p: Proposals, n: int, target: Tensor) -> Negatives:
    """Mixed negative sampling (Yang et al., 2020): half from the batch, half from the catalogue."""
    half = n // 2
    item = torch.cat([_batch(p, half, target).item, draw_negatives(p.mixed, n - half)])
    log_half = math.log(0.5)
    return Negatives(item, torch.logaddexp(p.popular + log_half, p.mixed + log_half))


Source = Callable[[Proposals, int, Tensor], Negatives]
SOURCES: dict[str, Source] = {
    "mixed": _mixed,
    "uniform": _uniform,
    "popular": _popular,
    "batch": _batch,
    "batch_mixed": _batch_mixed,
}


def number_of_negatives(configured: int, source: str, n_items: int) -> int:
    """Returns how many negatives a batch shares; 0 for the full softmax, which only the default source may have."""
    chosen = choose_negatives(configured, n_items)
    return chosen if chosen or source == "mixed" else SAMPLED_NEGATIVES
