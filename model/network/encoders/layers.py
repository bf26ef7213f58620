"""Layers that several encoders share."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017) with `heads` heads of `d_head` dimensions."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.heads = c.heads
        self.query = nn.Linear(c.d_model, c.heads * c.d_head)
        self.key = nn.Linear(c.d_model, c.heads * c.d_head)
        self.value = nn.Linear(c.d_model, c.heads * c.d_head)
        self.out = nn.Linear(c.heads * c.d_head, c.d_model)
        self.drop = c.dropout

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Returns what each position of x reads from `memory`, [B, T, d].

        Args:
            x: [B, T, d] positions that read.
            memory: [B, S, d] positions that are read.
            mask: [T, S] or [B, 1, T, S], added to the scores.
        """
        batch, n, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, y.shape[1], self.heads, -1).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(memory)), split(self.value(memory))
        drop = self.drop if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=drop)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, n, -1))
        return out


class PreNormBlock(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x). `cross` puts attention to a memory between the two.

    `gelu` names the approximation of the activation, as torch does.
    """

    def __init__(self, c: NetworkConfig, *, cross: bool = False, gelu: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        self.gelu = gelu
        self.norm_attention = nn.LayerNorm(c.d_model)
        self.attention = Attention(c)
        self.norm_cross = nn.LayerNorm(c.d_model) if cross else None
        self.cross = Attention(c) if cross else None
        self.norm_ff = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """Returns the block's output [B, T, d]; `mask` is added to the scores of both attentions."""
        y = self.norm_attention(x)
        x = x + self.dropout(self.attention(y, y, mask))
        if self.cross is not None and self.norm_cross is not None and memory is not None:
            x = x + self.dropout(self.cross(self.norm_cross(x), memory, mask))
        out: Tensor = x + self.dropout(self.down(F.gelu(self.up(self.norm_ff(x)), approximate=self.gelu)))
        return out


def stored_dtype(c: NetworkConfig) -> Literal["float32", "float16"]:
    """Returns the type of what a step stores of an event; int8 is float16 there."""
    return "float32" if c.state_dtype == "float32" else "float16"


def picked(rows: Tensor, places: Tensor) -> Tensor:
    """Returns rows [B, n, d] at places [B, m] as [B, m, d]."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[2]))
