"""Attention rollout in torch: how much each event of a history contributes to its hidden state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.encoders.base import log_seconds
from model.network.encoders.layers import Attention
from model.network.encoders.streaming import Block, Streaming, quantise, rotary, rotate
from model.network.gpt4rec import GPT4Rec
from service.artifact.features import EventArrays


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


@torch.no_grad()
def history_rollout(model: GPT4Rec, events: EventArrays) -> Tensor:
    """Returns the share [n] of every event in h, of a transformer that encodes histories whole; they add up to 1.

    A decoder's cross-attention reads the encoder's rollout, and counts as much as what the decoder has by itself. What
    an event behind the history, which asks for the next one, has of itself is left out.

    Args:
        model: The network; it is set to evaluation mode.
        events: The n events that the encoder reads.
    """
    mean = _attention_of_whole(model.eval(), events)
    identity = torch.eye(next(iter(mean.values())).shape[-1])
    reads, rollout = identity, identity
    for layer in range(model.config.layers):
        if (name := f"reads.{layer}.attention") in mean:
            reads = (mean[name] + identity) @ reads / 2
    for layer in range(model.config.layers):
        rollout = (mean[f"blocks.{layer}.attention"] + identity) @ rollout / 2
        if (name := f"blocks.{layer}.cross") in mean:
            rollout = (rollout + mean[name] @ reads) / 2
    shares = rollout[-1, : len(events)]
    return shares / shares.sum()


def _attention_of_whole(model: GPT4Rec, events: EventArrays) -> dict[str, Tensor]:
    """Returns the attention [T, T] of every layer, averaged over its heads, by the name of the layer."""
    mean: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def hook(layer: Attention, inputs: tuple[Tensor, ...]) -> None:
            x, memory, mask = inputs
            query = layer.query(x)[0].view(x.shape[1], layer.heads, -1).transpose(0, 1)
            key = layer.key(memory)[0].view(x.shape[1], layer.heads, -1).permute(1, 2, 0)
            score = query @ key * query.shape[-1] ** -0.5 + mask.reshape(-1, x.shape[1])
            mean[name] = score.softmax(-1).mean(0)

        return hook

    over_time = {  # and not among the features of one event
        name: layer
        for name, layer in model.encoder.named_modules()
        if isinstance(layer, Attention) and name.startswith(("blocks.", "reads."))
    }
    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in over_time.items()]
    item, type_, time_ms = (torch.from_numpy(a)[None] for a in (events.item, events.type, events.time_ms))
    query = None if events.query is None else torch.from_numpy(events.query)[None]
    try:
        model.encode(item, type_, time_ms, torch.tensor([len(events)]), query=query)
    finally:
        for hook in hooks:
            hook.remove()
    return mean
