"""A trained head over a frozen sentence encoder: next item, rating and reason of a prompted history in one model.

Items and prompts are sentence vectors. Nothing in the model belongs to an item or a catalogue, so it can be asked about
one that it never saw. Before training it is text similarity: the cosine of an item with the mean of the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

HIDDEN, RANK = 128, 48
# What softmax sees of a cosine: text similarities lie close together.
SCALE = 10.0


@dataclass(frozen=True)
class Prompted:
    """Prompted histories.

    Attributes:
        prompt: [B, d] sentence vectors of the prompts.
        history: [B, T, d] sentence vectors of the items, right-aligned, the newest last.
        valid: [B, T] bool, false for padding.
    """

    prompt: Tensor
    history: Tensor
    valid: Tensor


class PromptedHead(nn.Module):
    """One trunk reads the prompt, whose words tell the task; one map reads items; each task adds what it needs.

    Args:
        d: Width of sentence vectors.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, HIDDEN), nn.GELU(), nn.Dropout(0.2))
        self.of_prompt = nn.Linear(HIDDEN, RANK)
        self.of_item = nn.Linear(d, RANK, bias=False)
        self.age = nn.Parameter(torch.full((2,), -3.0))  # softplus: decay over the history, of next item and reason
        self.likeness = nn.Parameter(torch.tensor([SCALE, SCALE]))
        self.liked = nn.Linear(RANK, 1)
        nn.init.zeros_(self.of_prompt.weight)
        nn.init.zeros_(self.of_prompt.bias)

    def next_scores(self, asked: Prompted, items: Tensor) -> Tensor:
        """Returns the scores [B, N] of items [N, d] as the next one."""
        weight = self._ages(asked, 0).masked_fill(~asked.valid, -1e9).softmax(dim=1)
        weight = weight * asked.valid  # an empty history has no likeness
        mean = (weight[..., None] * asked.history).sum(dim=1)
        out: Tensor = self.likeness[0] * mean @ items.T + self._read(asked) @ self.of_item(items).T
        return out

    def ratings(self, asked: Prompted, item: Tensor) -> Tensor:
        """Returns ratings [B] of items [B, d], standardised."""
        mapped = self.of_item(item)
        out: Tensor = (self._read(asked) * mapped).sum(dim=1) + self.liked(mapped)[:, 0]
        return out

    def reason_scores(self, asked: Prompted, item: Tensor) -> Tensor:
        """Returns the scores [B, T] of the items of the history as the reason for items [B, d]; −1e9 for padding."""
        like = torch.einsum("btd,bd->bt", asked.history, item)
        read = torch.einsum("btr,br->bt", self.of_item(asked.history), self._read(asked))
        return (self.likeness[1] * like + read + self._ages(asked, 1)).masked_fill(~asked.valid, -1e9)

    def _read(self, asked: Prompted) -> Tensor:
        out: Tensor = self.of_prompt(self.trunk(asked.prompt))
        return out

    def _ages(self, asked: Prompted, task: int) -> Tensor:
        """Returns [1, T], less for older items."""
        n = asked.valid.shape[1]
        age = torch.arange(n - 1, -1, -1, device=self.age.device, dtype=self.age.dtype)
        return -nn.functional.softplus(self.age[task]) * age[None]
