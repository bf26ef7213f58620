"""The learning rate by hand, what decays, and how closely the average follows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.training.config import TrainConfig
from model.training.optimiser import LEAST_RATE, build_optimiser, learning_rate, update_average


@pytest.mark.parametrize(
    ("step", "done", "decay", "expected"),
    [
        (1, 0.0, "linear", 0.1),
        (10, 0.0, "linear", 1.0),
        (10, 0.25, "linear", 0.75),
        (5, 0.5, "linear", 0.25),
        (1000, 1.0, "linear", LEAST_RATE),
        (1000, 1.0, "none", 1.0),
    ],
)
def test_the_learning_rate_rises_in_the_warm_up_and_falls_to_a_floor(
    step: int, done: float, decay: str, expected: float
) -> None:
    config = TrainConfig().updated({"learning_rate": 1.0, "warmup_steps": 10, "decay": decay})
    assert learning_rate(config, step, done) == pytest.approx(expected)


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    decaying, others = build_optimiser(model, TrainConfig(weight_decay=0.1)).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in decaying["params"]] == [2]
    assert [p.ndim for p in others["params"]] == [1, 1, 1]


@pytest.mark.parametrize(("step", "kept"), [(1, 2 / 11), (1_000_000, 0.98)])
def test_the_average_follows_closely_at_first_and_by_the_setting_later(step: int, kept: float) -> None:
    average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        average.weight.fill_(1.0)
        model.weight.fill_(0.0)
    update_average(average, model, 0.98, step)
    assert average.weight.item() == pytest.approx(kept)
