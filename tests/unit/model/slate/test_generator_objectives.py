"""DPO and GRPO: their formulas equal plain loops, and a step makes what was clicked more probable."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model.slate.generator_objectives import (
    Feedback,
    Histories,
    Objective,
    Settings,
    advantages,
    dpo_loss,
    fine_tune,
    grpo_loss,
    path_log_probs,
)
from tests.support.networks import random_network


def random_lists(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    now, before = (torch.from_numpy(rng.normal(scale=0.4, size=(6, 4))) for _ in range(2))
    return now, before, torch.from_numpy(rng.random((6, 4)) < 0.4)


def test_dpo_equals_plain_loops() -> None:
    now, before, clicked = random_lists(0)
    losses = [
        math.log1p(math.exp(-0.3 * float(now[n, w] - before[n, w] - now[n, x] + before[n, x])))
        for n in range(6)
        for w in range(4)
        for x in range(w)
        if clicked[n, w] and not clicked[n, x]
    ]
    assert losses and float(dpo_loss(now, before, clicked, 0.3)) == pytest.approx(sum(losses) / len(losses))
    assert float(dpo_loss(now, before, torch.zeros_like(clicked), 0.3)) == 0.0


def test_grpo_equals_plain_loops() -> None:
    now, before, clicked = random_lists(1)
    looks = torch.tensor([1.0, 0.6, 0.5, 0.4], dtype=torch.float64)
    total = 0.0
    found = advantages(clicked, looks)
    for n in range(6):
        rewards = np.array([float(clicked[n, p]) / float(looks[p]) for p in range(4)])
        for p in range(4):
            advantage = (rewards[p] - rewards.mean()) / rewards.std() if rewards.std() > 0 else 0.0
            assert float(found[n, p]) == pytest.approx(advantage)
            ratio = math.exp(float(now[n, p] - before[n, p]))
            gain = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
            apart = 1.0 / ratio + math.log(ratio) - 1.0
            total += 0.1 * apart - gain
    assert float(grpo_loss(now, before, found, 0.2, 0.1)) == pytest.approx(total / 24)


@pytest.mark.parametrize("objective", ["dpo", "grpo", "likelihood"])
def test_what_was_clicked_becomes_more_probable(objective: Objective) -> None:
    model = random_network(n_items=20, sizes=(4, 6))
    lists, rng = 24, np.random.default_rng(2)
    item = torch.from_numpy(rng.integers(0, 20, (lists, 3)))
    time_ms = torch.arange(3)[None].expand(lists, -1) * 60_000
    histories = Histories(item, torch.zeros(lists, 3, dtype=torch.int64), time_ms, torch.full((lists,), 3))
    shown = torch.from_numpy(np.stack([rng.permutation(20)[:4] for _ in range(lists)]))
    clicked = torch.zeros(lists, 4, dtype=torch.bool)
    clicked[:, 2] = True
    feedback = Feedback(histories, shown, clicked, torch.tensor([1.0, 0.6, 0.5, 0.4]))
    settings = Settings(epochs=2, batch=12, learning_rate=1e-3)
    with torch.no_grad():
        before = path_log_probs(model, histories, shown)
        every = path_log_probs(model, histories, torch.arange(20).expand(lists, -1)).exp().sum(dim=1)
    assert (every <= 1.0 + 1e-5).all()
    tuned = fine_tune(model, feedback, objective, settings)
    with torch.no_grad():
        moved = path_log_probs(tuned, histories, shown) - before
        assert torch.equal(path_log_probs(model, histories, shown), before)
    others = torch.cat([moved[:, :2], moved[:, 3:]], dim=1)
    assert moved[:, 2].mean() > others.mean()
