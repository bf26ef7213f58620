"""What a request adds to the hidden state of a history: a conditional layer norm, and soft prompts.

Letters in shapes: d = `d_model`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import log_seconds


class ContextNorm(nn.Module):
    """Conditional layer norm: q = (1 + γ(context)) ⊙ norm(h) + β(context).

    The context is the sum of one embedding a slot, or an MLP of them side by side, and of the gap between the last
    event and the request. γ and β start at 0, at a plain layer norm.
    """

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c.d_model)
        self.table = nn.Embedding(c.n_context_rows, c.d_context)
        self.slot = nn.Parameter(torch.zeros(c.n_slots, c.d_context))
        self.gap = nn.Linear(1, c.d_context, bias=False)
        self.gap_known = nn.Parameter(torch.zeros(c.d_context))
        self.modulate = nn.Linear(c.d_context, 2 * c.d_model)
        wide = 2 * c.d_context
        slots = c.n_slots * c.d_context
        self.join = (
            nn.Sequential(nn.Linear(slots, wide), nn.SiLU(), nn.Linear(wide, c.d_context))
            if c.user_vector == "mlp"
            else None
        )
        nn.init.normal_(self.table.weight, std=0.3)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, h: Tensor, context: Tensor, gap_ms: Tensor) -> Tensor:
        """Returns the query q [..., d].

        Args:
            h: [..., d] hidden states.
            context: [..., slots] int64 context rows, 0 where unknown.
            gap_ms: [...] int64 milliseconds between the last event and the request, −1 where unknown.
        """
        mixed = self.mixed(context)
        gap_is_known = (gap_ms >= 0).to(h.dtype)[..., None]
        mixed = mixed + gap_is_known * (self.gap(log_seconds(gap_ms)[..., None] * 0.1) + self.gap_known)
        gamma, beta = self.modulate(F.silu(mixed)).chunk(2, dim=-1)
        out: Tensor = self.norm(h) * (1.0 + gamma) + beta
        return out

    def mixed(self, context: Tensor) -> Tensor:
        """Returns u [..., d_context]: the sum of the known slots' embeddings, or MLP(e_1 ⊕ … ⊕ e_S) of them.

        Slots are the user's demographics and preferences, and the context of the request; an unknown one is zeros.
        """
        known = (context > 0).to(self.slot.dtype)[..., None]
        slots = (self.table(context) + self.slot) * known
        out: Tensor = slots.sum(dim=-2) if self.join is None else self.join(slots.flatten(-2))
        return out


class SoftPrompts(nn.Module):
    """k learned vectors for each value of one slot, a scene or a segment: h ← h + Σ softmax(norm(h) · p / √d) p.

    Li and Liang, "Prefix-Tuning", 2021, put such vectors before the input. Here the hidden state reads them instead, so
    that the state of a history does not depend on where the list is shown. An unknown value adds nothing.
    """

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.slot, self.first, self.rows = c.prompt_slot, c.prompt_first, c.prompt_rows
        self.norm = nn.LayerNorm(c.d_model)
        self.vectors = nn.Parameter(torch.randn(c.prompt_rows, c.prompts, c.d_model) * 0.05)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        """Returns the hidden states [..., d] with what they read; arguments as of `ContextNorm.forward`."""
        row = context[..., self.slot] - self.first
        place = torch.where((row >= 0) & (row < self.rows), row + 1, 0)
        prompts = torch.cat([torch.zeros_like(self.vectors[:1]), self.vectors])[place]
        score = (prompts @ self.norm(h)[..., None])[..., 0] * h.shape[-1] ** -0.5
        out: Tensor = h + (torch.softmax(score, dim=-1)[..., None] * prompts).sum(dim=-2)
        return out
