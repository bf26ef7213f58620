"""A trained head over a frozen sentence encoder: next item, rating and reason of a prompted history in one model.

Nothing in the model belongs to an item or a catalogue, so it can be asked about one that it never saw. What comes next
has two parts. How alike an item is to the history, in several views, is weighed by a handful of numbers: of the views,
of ages, and of how much the best match counts beside the mean. They say how people go on, and hold elsewhere. What the
prompt says of an item is a map over the text space with thousands of numbers, which knows what is liked in its own
catalogue. It counts by a share, which the training chooses on items that it holds out.
Before training the head is text similarity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

HIDDEN, RANK = 128, 48
# What softmax sees of a cosine: text similarities lie close together.
SCALE = 10.0
_OUT = -1e9


@dataclass(frozen=True)
class Prompted:
    """Prompted histories.

    Attributes:
        prompt: [B, d] sentence vectors of the prompts.
        history: [B, T, d] sentence vectors of the items, right-aligned, the newest last.
        rows: [B, T] int64, the same items as rows of their catalogue; −1 for padding.
    """

    prompt: Tensor
    history: Tensor
    rows: Tensor

    @property
    def valid(self) -> Tensor:
        """[B, T] bool, false for padding."""
        return self.rows >= 0


class PromptedHead(nn.Module):
    """One trunk reads the prompt, whose words tell the task; one map reads items; each task adds what it needs.

    Args:
        d: Width of sentence vectors.
        views: Ways in which items are alike.
    """

    share: Tensor

    def __init__(self, d: int, views: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, HIDDEN), nn.GELU(), nn.Dropout(0.2))
        self.of_prompt = nn.Linear(HIDDEN, RANK)
        self.of_item = nn.Linear(d, RANK, bias=False)
        # Softplus of these: the decay over the history, of the next item and of the reason, and how sharply the best
        # match counts; near 0 it is the mean over the history, far above it the maximum.
        self.age = nn.Parameter(torch.tensor(-3.0))
        self.reason_age = nn.Parameter(torch.tensor(-3.0))
        self.sharpness = nn.Parameter(torch.tensor(-3.0))
        self.views = nn.Parameter(torch.full((views,), SCALE / views))
        self.reason_views = nn.Parameter(torch.full((views,), SCALE / views))
        self.register_buffer("share", torch.ones(()))
        self.liked = nn.Linear(RANK, 1)
        nn.init.zeros_(self.of_prompt.weight)
        nn.init.zeros_(self.of_prompt.bias)

    def next_scores(self, asked: Prompted, items: Tensor, alike: Tensor) -> Tensor:
        """Returns the scores [B, M] of items [M, d] as the next one; `alike` [views, N, M] compares all with them."""
        return self.alike(asked, alike) + self.share * self.told(asked, items)

    def alike(self, asked: Prompted, alike: Tensor) -> Tensor:
        """Returns how alike items are to the history [B, M]: a mean, in which better matches may count more."""
        rows = asked.rows.clamp(min=0)
        like = torch.stack([view[rows] * weight for view, weight in zip(alike, self.views, strict=True)]).sum(dim=0)
        like = like * asked.valid[..., None]  # an empty history is like nothing
        log_weight = _ages(self.age, asked).masked_fill(~asked.valid, _OUT).log_softmax(dim=1)
        sharpness = nn.functional.softplus(self.sharpness)
        return torch.logsumexp(log_weight[..., None] + sharpness * like, dim=1) / sharpness

    def told(self, asked: Prompted, items: Tensor) -> Tensor:
        """Returns what the prompt says of items [M, d], as [B, M]."""
        out: Tensor = self._read(asked) @ self.of_item(items).T
        return out

    def few(self) -> list[nn.Parameter]:
        """Returns the few weights of how alike items are, which hold for any catalogue."""
        return [self.age, self.views, self.sharpness, self.reason_age, self.reason_views]

    def ratings(self, asked: Prompted, item: Tensor) -> Tensor:
        """Returns ratings [B] of items [B, d], standardised."""
        mapped = self.of_item(item)
        out: Tensor = (self._read(asked) * mapped).sum(dim=1) + self.liked(mapped)[:, 0]
        return out

    def reason_scores(self, asked: Prompted, target: Tensor, alike: Tensor) -> Tensor:
        """Returns the scores [B, T] of the history as the reason for items `target` [B]; −1e9 for padding."""
        like = torch.einsum("v,vbt->bt", self.reason_views, alike[:, asked.rows.clamp(min=0), target[:, None]])
        read = torch.einsum("btr,br->bt", self.of_item(asked.history), self._read(asked))
        return (like + read + _ages(self.reason_age, asked)).masked_fill(~asked.valid, _OUT)

    def _read(self, asked: Prompted) -> Tensor:
        out: Tensor = self.of_prompt(self.trunk(asked.prompt))
        return out


def _ages(decay: Tensor, asked: Prompted) -> Tensor:
    """Returns [1, T], less for older items."""
    age = torch.arange(asked.rows.shape[1] - 1, -1, -1, device=decay.device, dtype=decay.dtype)
    return -nn.functional.softplus(decay) * age[None]
