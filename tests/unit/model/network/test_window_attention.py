"""Attention in a window with other patterns, positions and decays: by plain loops, and event by event."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.errors import ConfigError, RunError
from model.network.config import NetworkConfig
from model.network.encoders.attention_scores import LEAST_WEIGHT, TIME_ENTRIES
from model.network.encoders.base import MASK_SCORE, Events
from model.network.encoders.memory_encoder import CHUNK
from model.network.encoders.registry import reads, receptive_field, remembers_trimmed, state_layout
from model.network.encoders.routing import MARGIN, Routed, Router, chosen, imbalance
from model.network.encoders.streaming import ROPE_BASE
from model.network.encoders.window_attention import WindowAttention, WindowBlock
from model.network.gpt4rec import GPT4Rec
from model.training.batch_loss import BatchLoss
from model.training.config import TrainConfig
from model.training.positions import Setup
from model.training.trainer import Trainer
from tests.support.artifacts import random_parts
from tests.support.data_builders import tiny_dataset
from tests.support.histories import full_encode
from tests.support.networks import random_network
from tests.unit.export.graphs.test_step_encoder import history, stepped

WINDOW, STRIDE, ROUTED, FARTHEST = 8, 3, 3, 5
# Pattern, positions, decay and its rate: each value once or more.
VARIANTS = [
    ("window", "relative", "exponential", 0.2),
    ("strided", "sinusoid", "none", 0.0),
    ("fixed", "relative_time", "linear", 0.0),
    ("routing", "none", "logarithmic", 0.1),
    ("routing", "rotary", "linear", 0.02),
]
DAY = 86_400.0


def network(pattern: str, positions: str, decay: str, rate: float, **overrides: Any) -> GPT4Rec:
    settings: dict[str, Any] = {
        "pattern": pattern, "positions": positions, "time_decay": decay, "decay_rate": rate, "window": WINDOW,
        "stride": STRIDE, "routed_keys": ROUTED, "max_distance": FARTHEST, "layers": 1, "state_dtype": "float32",
    }  # fmt: skip
    model = random_network(encoder="window_attention", **(settings | overrides))
    return model.requires_grad_(False)


def block_of(model: GPT4Rec) -> WindowBlock:
    return cast("WindowBlock", cast("WindowAttention", model.encoder).blocks[0])


def waves(place: float, width: int) -> Tensor:
    angle = place * ROPE_BASE ** (-torch.arange(0, width, 2) / width)
    return torch.cat([angle.sin(), angle.cos()])


def turned(x: Tensor, place: float) -> Tensor:
    half, wave = len(x) // 2, waves(place, len(x))
    sin, cos = wave[:half], wave[half:]
    return torch.cat([x[:half] * cos - x[half:] * sin, x[half:] * cos + x[:half] * sin])


def read_by(c: NetworkConfig, t: int) -> list[int]:
    """The events that event t may read."""
    near = range(max(0, t - WINDOW), t + 1)
    if c.pattern == "strided":
        return [j for j in near if t - j < STRIDE or (t - j) % STRIDE == 0]
    if c.pattern == "fixed":
        return [j for j in near if j // STRIDE == t // STRIDE or j % STRIDE == STRIDE - 1]
    return list(near)


def added(block: WindowBlock, head: int, query: Tensor, distance: int, seconds: float) -> float:
    """What positions and decay add to a score."""
    c, log = block.c, math.log1p(seconds)
    total = 0.0
    if block.relative is not None:
        total += float(block.relative.table[min(distance, FARTHEST), head])
    if block.time is not None:
        below = min(int(log), TIME_ENTRIES - 2)
        share = min(log, TIME_ENTRIES - 1.001) - below
        total += float((1 - share) * block.time.table[below, head] + share * block.time.table[below + 1, head])
    if block.sinusoid is not None:
        wave = waves(distance, 16) + float(cast("Tensor", block.sinusoid.alpha)) * waves(log, 16)
        total += float(query @ block.sinusoid.read.weight @ wave) / 4
    if block.decay is not None:
        rate = c.decay_rate or float(F.softplus(cast("Tensor", block.decay.learned)[head]))
        if c.time_decay == "linear":
            total += math.log(max(LEAST_WEIGHT, 1 - rate * seconds / DAY))
        else:
            total -= rate * (seconds / DAY if c.time_decay == "exponential" else log)
    return total


def choice(router: Router, y: Tensor, keys: Tensor) -> Tensor:
    """How much of each key [S, 16] the last one reads, by sorting."""
    score = [float(router.out(F.gelu(router.query(y) + router.key(key)))) for key in keys]
    others = sorted(score[:-1], reverse=True)
    first_left_out = others[ROUTED] if len(others) > ROUTED else -math.inf
    return torch.tensor([min(1.0, max(0.0, (s - first_left_out) / MARGIN)) for s in score[:-1]] + [1.0])


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
def test_an_event_reads_what_plain_loops_say(variant: tuple[str, str, str, float]) -> None:
    model = network(*variant)
    block, events = block_of(model), history(2, CHUNK + 9)
    item, type_, time_ms = (torch.from_numpy(a)[None] for a in (events.item, events.type, events.time_ms))
    items, features = model.embed(model.item_table(), item, type_, time_ms)
    x = items + features
    got = model.encoder(x, Events(type_, time_ms, items, features), None)[0]
    y = block.norm_attention(x[0])
    keys, values = block.key_value(y).split(16, dim=-1)
    for t in (0, 1, 2, 9, 40, CHUNK - 1, CHUNK, CHUNK + 8):
        near, mixed = read_by(block.c, t), []
        share = torch.ones(len(near)) if block.router is None else choice(block.router, y[t], keys[near])
        for head, query in enumerate(block.query(y[t]).view(2, 16)):
            rotary = block.c.positions == "rotary"
            score = torch.stack(
                [
                    (turned(query, t) @ turned(keys[j], j) if rotary else query @ keys[j]) / 4
                    + added(block, head, query, t - j, float(time_ms[0, t] - time_ms[0, j]) / 1000)
                    for j in near
                ]
            )
            weight = score.exp() * share
            mixed.append(weight / weight.sum() @ values[near])
        h = x[0, t] + block.out(torch.cat(mixed))
        h = h + block.down(F.gelu(block.up(block.norm_ff(h))))
        assert torch.allclose(got[t], h, atol=1e-3, rtol=1e-3), t


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
def test_streaming_over_random_splits_equals_one_pass(variant: tuple[str, str, str, float]) -> None:
    model, rng = network(*variant, layers=2), np.random.default_rng(0)
    vocabulary = random_parts(model).vocabulary
    for n in (1, 6, 75):
        events = history(n, n)
        splits = rng.integers(1, n + 1, 5).tolist()
        h = stepped(model, vocabulary.with_start(events), splits, padding=2)
        np.testing.assert_allclose(h, full_encode(model, vocabulary, events), atol=2e-4)


def test_the_fixed_pattern_alone_needs_the_place_in_the_whole_history() -> None:
    for pattern, positions, decay, rate in VARIANTS:
        config = network(pattern, positions, decay, rate).config
        assert remembers_trimmed(config) == (pattern == "fixed") == state_layout(config).remembers_trimmed
        assert (reads(config) > receptive_field(config)) == (pattern == "fixed")


def test_what_is_chosen_fades_in_and_is_balanced_where_all_are_read_alike() -> None:
    score = torch.tensor([[3.0, 1.0, 1.0 + MARGIN / 2, 2.0, MASK_SCORE]])
    assert torch.allclose(chosen(score, 3), torch.tensor([[1.0, 0.0, 0.5, 1.0, 0.0]]), atol=1e-5)
    assert chosen(score, 4).tolist() == [[1.0, 1.0, 1.0, 1.0, 0.0]], "there are fewer than may be chosen"
    assert cast("Router", block_of(network("routing", "none", "none", 0.0, routed_keys=99)).router).most == WINDOW - 1
    alike = Routed(torch.zeros(1, 4, 4), torch.eye(4)[None])
    one = Routed(torch.tensor([5.0, 0, 0, 0]).expand(1, 4, 4), torch.tensor([1.0, 0, 0, 0]).expand(1, 4, 4))
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    assert float(imbalance(alike, everywhere)) == pytest.approx(1.0)
    assert float(imbalance(one, everywhere)) == pytest.approx(4 * math.exp(5) / (math.exp(5) + 3))


def test_the_scorer_learns_by_the_loss_and_by_the_balance(tmp_path: Any) -> None:
    settings = TrainConfig().updated({"size": "tiny", "encoder": "window_attention", "max_length": 16, "network": {
        "pattern": "routing", "routed_keys": 2, "layers": 1}, "methods.routing_balance": 1.0})  # fmt: skip
    dataset = tiny_dataset(users=12)
    trainer = Trainer(dataset, tmp_path, tmp_path / "run", settings)
    batch = next(iter(trainer.plan.batches(0, trainer.network.n_items + 1)))
    router = cast("Router", block_of(trainer.model).router)
    losses = []
    for weight in (0.0, 1.0):
        config = settings.updated({"methods.routing_balance": weight})
        setup = Setup(trainer.model, config, trainer.conditions, dataset, trainer.learned, trainer.log_q)
        trainer.model.train().zero_grad()
        torch.manual_seed(0)
        loss = BatchLoss(trainer.model, trainer.conditions, config, trainer.log_q, setup)(batch)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        for weights in (router.query.weight, router.key.weight, router.out.weight):
            assert weights.grad is not None and bool(torch.isfinite(weights.grad).all())
            assert float(weights.grad.abs().max()) > 0
        losses.append(float(loss.detach()))
    assert losses[1] > losses[0] + 0.5, "the balance is 1 at best"
    plain = settings.updated({"network.pattern": "window"})
    with pytest.raises(RunError, match=r"network\.pattern=routing"):
        model = network("window", "rotary", "none", 0.0)
        BatchLoss(
            model, trainer.conditions, plain, trainer.log_q,
            Setup(model, plain, trainer.conditions, dataset, trainer.learned, trainer.log_q),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network.positions": "relative"}, "no effect with the encoder gpt4rec; choose encoder window_attention"),
        (
            {"encoder": "window_attention", "network.pattern": "random"},
            r"network\.pattern must be one of window, strid",
        ),
        ({"encoder": "window_attention", "network.decay_rate": -1.0}, r"network\.decay_rate must be at least 0"),
    ],
)
def test_a_setting_without_effect_or_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig().updated(values)
