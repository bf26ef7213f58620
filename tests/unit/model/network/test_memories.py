"""Encoders with a memory: what they compute, by plain loops, and how far they remember."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.config import Compression
from model.network.encoders import gated_linear
from model.network.encoders.base import Events, log_seconds
from model.network.encoders.compressive import CHUNK, Compressive, CompressiveBlock
from model.network.encoders.gated_linear import GatedLinear, GatedLinearBlock
from model.network.encoders.streaming import ROPE_BASE
from model.network.gpt4rec import GPT4Rec
from tests.support.histories import random_history
from tests.support.networks import random_network

COMPRESSIONS: tuple[Compression, ...] = ("mean", "convolution", "attention")


def network(encoder: str, **overrides: Any) -> GPT4Rec:
    return random_network(encoder=encoder, layers=1, scale=1.0, state_dtype="float32", **overrides).requires_grad_(
        False
    )


def inputs(model: GPT4Rec, n: int, seed: int = 0) -> tuple[Tensor, Events]:
    events = random_history(np.random.default_rng(seed), n, 40)
    arrays = [torch.from_numpy(a)[None] for a in (events.item, events.type, events.time_ms)]
    items, features = model.embed(model.item_table(), arrays[0], arrays[1], arrays[2])
    return items + features, Events(arrays[1], arrays[2], items, features)


def test_the_chunkwise_form_of_gated_linear_attention_is_its_recurrence() -> None:
    model = network("gated_linear")
    block = cast("GatedLinearBlock", cast("GatedLinear", model.encoder).blocks[0])
    assert block.elapsed is not None
    block.elapsed.copy_(torch.tensor([0.3, -0.2]))
    n = 23
    y, gap = torch.randn(1, n, 32), log_seconds(torch.randint(0, 10**9, (1, n)))
    before = torch.randn(1, 2, gated_linear.key_width(model.config), 16)
    got, after = block.mix(y, gap, None, before)
    memory, read = before[0].clone(), []
    for t in range(n):
        query, key, value = (layer(y[0, t]).view(2, -1) for layer in (block.query, block.key, block.value))
        forget = F.softplus(block.forget(y[0, t]) + block.elapsed * gap[0, t])
        write = torch.sigmoid(block.write(y[0, t]))
        for head in range(2):
            memory[head] = torch.exp(-forget[head]) * memory[head] + write[head] * torch.outer(key[head], value[head])
        heads = torch.stack([memory[head].T @ query[head] for head in range(2)])
        read.append(block.out(F.silu(block.gate(y[0, t])) * block.norm_read(heads).flatten()))
    assert torch.allclose(got[0], torch.stack(read), atol=1e-5)
    assert torch.allclose(after[0], memory, atol=1e-5)


def test_the_heads_of_gated_linear_attention_forget_at_rates_from_events_to_thousands() -> None:
    torch.manual_seed(0)
    rates = F.softplus(GatedLinearBlock(network("gated_linear").config).forget.bias)
    assert rates.tolist() == pytest.approx([gated_linear.FASTEST, gated_linear.SLOWEST], rel=1e-4)


def test_gated_linear_attention_is_the_same_across_the_border_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("gated_linear")
    x, events = inputs(model, 30)
    whole = model.encoder(x, events, None)
    monkeypatch.setattr(gated_linear, "CHUNK", 7)
    assert torch.allclose(model.encoder(x, events, None), whole, atol=1e-5)


def rotated(x: Tensor, position: float) -> Tensor:
    """x [16] turned by its rotary position."""
    half = len(x) // 2
    angle = position * ROPE_BASE ** (-torch.arange(0, len(x), 2) / len(x))
    one, other = x[:half], x[half:]
    return torch.cat([one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()])


def entry_of(block: CompressiveBlock, keys_values: Tensor) -> Tensor:
    """The entry of a block of events [c, 2 · 16]."""
    if block.c.compression == "mean":
        return sum(keys_values, torch.zeros(32)) / len(keys_values)
    if block.c.compression == "convolution":
        return sum((w * one for w, one in zip(block.weight, keys_values, strict=True)), torch.zeros(32))
    share = torch.tensor([float(block.weight @ one[:16]) for one in keys_values]).softmax(0)
    return sum((s * one for s, one in zip(share, keys_values, strict=True)), torch.zeros(32))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_event_reads_the_window_and_the_entries_behind_it(compression: Compression) -> None:
    ratio, slots, window, n = 3, 4, 8, CHUNK + 9
    model = network("compressive", compression=compression, compression_ratio=ratio, memory_slots=slots, window=window)
    block = cast("CompressiveBlock", cast("Compressive", model.encoder).blocks[0])
    block.entry_bias.copy_(torch.tensor([0.7, -0.4]))
    if compression != "mean":
        block.weight.add_(torch.randn_like(block.weight))
    assert block.decay is not None
    x, events = inputs(model, n)
    got, time = model.encoder(x, events, None)[0], events.time_ms[0]
    keys_values = block.key_value(block.norm_attention(x[0]))
    for t in (0, 1, 8, 9, 10, 11, 12, 40, CHUNK - 1, CHUNK, n - 1):
        left = max(0, t - window) // ratio
        read = [(keys_values[s], float(s), time[s], 0.0) for s in range(left * ratio, t + 1)]
        for j in range(max(0, left - slots), left):
            last = (j + 1) * ratio - 1
            entry = entry_of(block, keys_values[j * ratio : last + 1])
            read.append((entry, j * ratio + (ratio - 1) / 2, time[last], 1.0))
        query, mixed = block.query(block.norm_attention(x[0, t])).view(2, 16), []
        for head in range(2):
            scores = torch.stack(
                [
                    rotated(query[head], float(t)) @ rotated(one[:16], place) / 4
                    - F.softplus(block.decay[head]) * log_seconds(time[t] - at)
                    + block.entry_bias[head] * is_entry
                    for one, place, at, is_entry in read
                ]
            )
            mixed.append(scores.softmax(0) @ torch.stack([one[16:] for one, *_ in read]))
        h = x[0, t] + block.out(torch.cat(mixed))
        h = h + block.down(F.gelu(block.up(block.norm_ff(h))))
        assert torch.allclose(got[t], h, atol=1e-4), t


def test_compressive_memory_reaches_as_far_as_its_entries_and_no_farther() -> None:
    ratio, slots, window, n = 3, 4, 8, 60
    model = network("compressive", compression_ratio=ratio, memory_slots=slots, window=window)
    x, events = inputs(model, n)
    h = model.encoder(x, events, None)[0, -1]
    oldest = ((n - 1 - window) // ratio - slots) * ratio
    for place, matters in ((oldest - 1, False), (oldest, True)):
        changed = x.clone()
        changed[0, place] = torch.randn(32)
        moved = float((model.encoder(changed, events, None)[0, -1] - h).abs().max())
        assert (moved > 1e-6) == matters, place
