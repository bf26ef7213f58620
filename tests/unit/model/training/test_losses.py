"""The joint loss against the definitions, and the sampled softmax against the full one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.gpt4rec import GPT4Rec
from model.network.scoring import dense_logits
from model.training import losses
from model.training.losses import (
    LossWeights,
    Sample,
    choose_negatives,
    draw_negatives,
    full_softmax,
    joint_loss,
    sampled_softmax,
)
from tests.support.networks import random_network

N, D, P = 40, 32, 6


@pytest.fixture(scope="module")
def model() -> GPT4Rec:
    return random_network(n_items=N).requires_grad_(False)


@pytest.fixture
def queries() -> Tensor:
    return torch.randn(P, D, generator=torch.Generator().manual_seed(1))


TARGET = torch.tensor([0, 3, 3, 17, 39, 8])
LOG_Q = torch.log_softmax(torch.linspace(-1.5, 1.5, N), dim=0)


def test_the_joint_loss_is_the_sum_of_its_parts_computed_by_hand(model: GPT4Rec, queries: Tensor) -> None:
    table = model.item_table()
    weights = LossWeights(codes=0.3, dense=2.0)
    loss, dense, path = joint_loss(model, queries, table, TARGET, weights, LOG_Q)
    by_hand_dense = by_hand_path = 0.0
    for q, item in zip(queries, TARGET.tolist(), strict=True):
        scores = [float(q @ table[i]) for i in range(N)]
        by_hand_dense += (math.log(sum(math.exp(s) for s in scores)) - scores[item]) / P
        state = model.begin(q)
        for level, token in enumerate(model.codes[item].tolist()):
            logits = model.level_logits(level, state)
            by_hand_path -= float(torch.log_softmax(logits, dim=-1)[token]) / P
            if level + 1 < model.config.levels:
                state = model.step(level, state, torch.tensor(token))
    assert float(dense) == pytest.approx(by_hand_dense, abs=1e-4)
    assert float(path) == pytest.approx(by_hand_path, abs=1e-4)
    assert float(loss) == pytest.approx(2.0 * by_hand_dense + 0.3 * by_hand_path, abs=1e-4)


def test_the_path_loss_is_minus_the_log_probability_of_the_item(model: GPT4Rec, queries: Tensor) -> None:
    """p(item) = ∏ p(token), so the probabilities of all paths of the code space sum to one."""
    sizes = model.config.code_sizes
    paths = torch.cartesian_prod(*[torch.arange(size) for size in sizes])
    q = queries[:1].expand(len(paths), -1)
    log_prob = sum(
        torch.log_softmax(logits, -1).gather(1, paths[:, level : level + 1])[:, 0]
        for level, logits in enumerate(model.path_logits(q, paths))
    )
    assert isinstance(log_prob, Tensor)
    assert float(torch.logsumexp(log_prob, 0)) == pytest.approx(0.0, abs=1e-4)


def test_no_score_is_given_to_the_unknown_item_and_the_start_token(model: GPT4Rec, queries: Tensor) -> None:
    assert dense_logits(queries, model.item_table()).shape == (P, N)


def test_label_smoothing_takes_from_the_target(model: GPT4Rec, queries: Tensor) -> None:
    table = model.item_table()
    plain = full_softmax(queries, table, TARGET, 0.0)
    smooth = full_softmax(queries, table, TARGET, 0.2)
    log_p = torch.log_softmax(dense_logits(queries, table), dim=-1)
    assert float(smooth) == pytest.approx(0.8 * float(plain) - 0.2 * float(log_p.mean()), abs=1e-5)


def sampled(queries: Tensor, table: Tensor, negatives: int, seed: int, target: Tensor = TARGET) -> Tensor:
    drawn = draw_negatives(LOG_Q, negatives, torch.Generator().manual_seed(seed))
    return sampled_softmax(queries, table[target], table[drawn], LOG_Q[target], LOG_Q[drawn])


def gradient(loss: Tensor, table: Tensor) -> Tensor:
    return torch.autograd.grad(loss, table, retain_graph=True)[0][:N]


@pytest.mark.parametrize("negatives", [200, 5000, 200_000])
def test_the_sampled_softmax_becomes_the_full_one_as_negatives_grow(
    model: GPT4Rec, queries: Tensor, negatives: int
) -> None:
    table = model.item_table().requires_grad_()
    full = full_softmax(queries, table, TARGET, 0.0)
    estimate = sampled(queries, table, negatives, seed=2)
    wanted, got = gradient(full, table), gradient(estimate, table)
    tolerance = 20.0 / math.sqrt(negatives)
    assert estimate.item() == pytest.approx(full.item(), abs=tolerance)
    assert float((wanted - got).norm() / wanted.norm()) < tolerance


def test_sampling_does_not_overrate_what_is_drawn_often() -> None:
    """Scores fitted with few negatives from a lopsided proposal end at the true log-probabilities."""
    torch.manual_seed(0)
    true = torch.softmax(torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5]), dim=0)
    log_q = torch.log(torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1]))
    q = torch.ones(2000, 1)
    table = torch.zeros(7, 1, requires_grad=True)
    optimiser = torch.optim.Adam([table], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    tail = []
    for step in range(200):
        target = torch.multinomial(true, len(q), replacement=True, generator=generator)
        optimiser.zero_grad()
        drawn = draw_negatives(log_q, 8, generator)
        loss = sampled_softmax(q, table[target], table[drawn], log_q[target], log_q[drawn])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step >= 100:
            tail.append(F.softmax(table[:5, 0].detach(), dim=0))
    assert torch.stack(tail).mean(0).tolist() == pytest.approx(true.tolist(), abs=0.03)


def test_negatives_of_more_items_than_torch_draws_from_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    log_q = torch.tensor([0.5, 0.0, 0.2, 0.3, 0.0]).log()
    monkeypatch.setattr(losses, "MULTINOMIAL_ITEMS", 4)
    drawn = draw_negatives(log_q, 40_000, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=5) / len(drawn)
    assert share.tolist() == pytest.approx(log_q.exp().tolist(), abs=0.01)


def test_a_joint_loss_with_negatives_takes_the_sampled_softmax(model: GPT4Rec, queries: Tensor) -> None:
    table = model.item_table()
    drawn = draw_negatives(LOG_Q, 9, torch.Generator().manual_seed(2))
    sample = Sample.of(torch.tensor([[2, N], [N + 1, 5]]), TARGET, drawn, N)
    loss, dense, path = joint_loss(
        model, queries, model.item_table(sample.rows), TARGET, LossWeights(negatives=9), LOG_Q, sample
    )
    assert float(dense) == pytest.approx(float(sampled(queries, table, 9, seed=2)), abs=1e-6)
    assert float(loss) == pytest.approx(float(dense) + 0.5 * float(path), abs=1e-5)
    full = joint_loss(model, queries, table, TARGET, LossWeights(), LOG_Q)[1]
    assert float(full) == pytest.approx(float(full_softmax(queries, table, TARGET, 0.0)), abs=1e-6)


def test_the_rows_of_a_sample_are_those_of_the_whole_table(model: GPT4Rec) -> None:
    item, drawn = torch.tensor([[2, N, 7], [N + 1, 5, 2]]), torch.tensor([1, 1, 39])
    sample = Sample.of(item, TARGET, drawn, N)
    used = torch.cat([item.reshape(-1), TARGET, drawn])
    assert torch.equal(model.item_table(sample.rows)[sample.place[used]], model.item_table()[used])
    assert sample.rows.tolist() == sorted({*used.tolist()} - {N, N + 1})


def test_only_large_catalogues_sample_by_themselves() -> None:
    assert choose_negatives(-1, 100) == 0
    assert choose_negatives(-1, 1_000_000) > 0
    assert choose_negatives(0, 1_000_000) == 0
    assert choose_negatives(64, 100) == 64
