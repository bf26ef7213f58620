"""Attention rollout in torch: how much each event of a history contributes to its hidden state."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.encoders.base import log_seconds
from model.network.encoders.streaming import Block, Streaming, quantise, rotary, rotate
from model.network.gpt4rec import GPT4Rec


@torch.no_grad()
def attention_rollout(model: GPT4Rec, item: Tensor, type_: Tensor, time_ms: Tensor) -> Tensor:
    """Returns the share [T] of every event in h after the last one; the shares add up to 1.

    Attention rollout (Abnar & Zuidema, 2020): each layer's attention is averaged over the heads, then with the identity
    for the residual connection, and multiplied through the layers.

    Args:
        model: A network with the streaming encoder; it is set to evaluation mode.
        item: [T] rows of the item table.
        type_: [T] event types.
        time_ms: [T] milliseconds since the epoch.
    """
    model.eval()
    c, n = model.config, len(item)
    x = torch.stack(model.embed(model.item_table(), item[None], type_[None], time_ms[None])).sum(0)
    distance = torch.arange(n)[:, None] - torch.arange(n)[None, :]
    mask = torch.zeros(n, n).masked_fill(~((distance >= 0) & (distance <= c.window)), -1e9)[None]
    elapsed = log_seconds(time_ms[:, None] - time_ms[None, :])[None] if c.has_time else None
    rope = rotary(n, c.d_head)
    rollout = torch.eye(n)
    for layer in cast(Streaming, model.encoder).blocks:
        block = cast(Block, layer)
        rollout = (attention(block, x, mask, elapsed, rope) + torch.eye(n)) @ rollout / 2
        x = block(x, mask, elapsed, rope)
    return rollout[-1]


def attention(block: Block, x: Tensor, mask: Tensor, elapsed: Tensor | None, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Returns a layer's attention [T, T], averaged over its heads."""
    c = block.c
    y = block.norm_attention(x)
    query = block.query(y).view(1, -1, c.heads, c.d_head).transpose(1, 2)
    key = quantise(block.key_value(y)[..., : c.d_head], c.state_dtype)
    score = rotate(query, *rope) @ rotate(key, *rope)[:, None].transpose(2, 3) * c.d_head**-0.5 + mask[:, None]
    if block.decay is not None and elapsed is not None:
        score = score - F.softplus(block.decay)[None, :, None, None] * elapsed[:, None]
    mean: Tensor = score.softmax(-1)[0].mean(0)
    return mean
