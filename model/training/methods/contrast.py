"""Sequence contrast: two views of a history lie together, views of different users apart (CL4SRec, Xie et al., 2022).

    −log exp(cos(a, b) / τ) / Σ_{c ≠ a} exp(cos(a, c) / τ)        b: the other view of a; c: all views of the batch

It has no parameters of its own, and the views of other sequences of the same user are left out of the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.gpt4rec import GPT4Rec
from model.training.batches import Batch
from model.training.methods.base import Term, encode_rows
from model.training.methods.views import any_view, batch_of, sequence_of
from model.training.positions import Positions

TEMPERATURE = 0.5


class Contrast(Term):
    """The sequence contrast of a batch."""

    def __call__(self, at: Positions) -> Tensor:
        """Returns the mean loss of the views; 0 for a batch with one user."""
        return contrast_of(self.model, at.batch, at.q.device)


def contrast_of(model: GPT4Rec, batch: Batch, device: torch.device) -> Tensor:
    """Draws two views of each sequence of a batch, encodes them and returns their contrast.

    Args:
        model: The network.
        batch: The batch, on the CPU.
        device: Where the network is.
    """
    sequence = sequence_of(batch, model.config.n_items)
    h = []
    for _ in range(2):
        view = any_view(sequence)
        h.append(encode_rows(model, batch_of(view, batch), view.n - 1, device))
    return contrast(h[0], h[1], batch.user.to(device))


def contrast(first: Tensor, second: Tensor, user: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Returns the mean contrast of 2B views.

    Args:
        first: [B, d] one view of each sequence.
        second: [B, d] the other.
        user: [B] the sequences' users.
        temperature: τ.
    """
    n = len(first)
    views = F.normalize(torch.cat([first, second]).float(), dim=-1)
    similar = views @ views.T / temperature
    rows = torch.arange(2 * n, device=first.device)
    other = (rows + n) % (2 * n)
    users = torch.cat([user, user])
    same = users[:, None] == users[None, :]
    same[rows, other] = False
    return F.cross_entropy(similar.masked_fill(same, -torch.inf), other)
