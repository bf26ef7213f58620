"""The parts of an increment against what they should be: Fisher information, proximal step, replay, tokens."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import sequences
from model.network.config import SIZES, NetworkConfig
from model.network.gpt4rec import GPT4Rec
from model.tokenizers.atomic import AtomicTokenizer
from model.tokenizers.hierarchical import HierarchicalTokenizer
from model.tokenizers.item_content import ItemContent
from model.training.batch_loss import BatchLoss
from model.training.batches import NO_TARGET, Batch
from model.training.conditions import Conditions
from model.training.config import TrainConfig
from model.training.increment.consolidation import FLOOR, Consolidation
from model.training.increment.fisher import diagonal_fisher
from model.training.increment.replay import LEAST_REPLAYED, ReplayPlan, learned_events
from model.training.increment.strength import strongest_alike
from model.training.losses import proposal
from tests.support.data_builders import tiny_dataset


def small_loss() -> BatchLoss:
    torch.manual_seed(0)
    shape = SIZES["tiny"] | {"layers": 1}
    config = NetworkConfig(5, (3, 3), 7, 2, 2, **shape)
    model = GPT4Rec(config, torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]]))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    zeros = torch.zeros(9, 1, dtype=torch.int64)
    nobody = Conditions(zeros[:, :0], torch.zeros(1, dtype=torch.int64), zeros, zeros[:, 0], 2, 0)
    config_ = TrainConfig(size="tiny", item_dropout=0, codes_weight=0.5)
    return BatchLoss(model, nobody, config_, proposal(np.arange(5), np.ones(5, bool)))


def test_the_fisher_information_is_the_mean_over_all_labels_by_their_probability() -> None:
    loss = small_loss()
    item = torch.tensor([[1, 3], [2, 0]])
    target = torch.tensor([[2, 4], [NO_TARGET, 1]])
    zero = torch.zeros_like(item)
    batch = Batch(item, zero, zero, target, zero - 1, zero - 1, torch.tensor([0, 1]), zero)
    got = diagonal_fisher(loss, [batch] * 150, seed=1)

    parameters = dict(loss.model.named_parameters())
    exact = {name: torch.zeros_like(p) for name, p in parameters.items()}
    at = loss.positions(batch)
    for q in at.q:
        dense = (q @ at.table[:-2].T).log_softmax(-1)
        first = loss.model.begin(q)
        paths = {}
        for a in range(3):
            log_a = loss.model.level_logits(0, first).log_softmax(-1)[a]
            second = loss.model.step(0, first, torch.tensor(a))
            for b in range(3):
                paths[a, b] = log_a + loss.model.level_logits(1, second).log_softmax(-1)[b]
        for weight, log_p in [(1.0, p) for p in dense] + [(0.5, p) for p in paths.values()]:
            gradients = torch.autograd.grad(log_p, list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(exact, gradients, strict=True):
                if gradient is not None:
                    exact[name] += weight * float(log_p.detach().exp()) * gradient.square() / len(at.q)
    for name, value in exact.items():
        assert float(got[name].sum()) == pytest.approx(float(value.sum()), rel=0.25, abs=1e-6), name


@settings(max_examples=30)
@given(st.floats(0.01, 100), st.floats(0, 10), st.integers(0, 1000))
def test_the_proximal_step_minimises_distance_and_penalty(strength: float, fisher: float, seed: int) -> None:
    torch.manual_seed(seed)
    layer = torch.nn.Linear(2, 1, bias=False)
    start = {"weight": torch.randn(1, 2)}
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.0, betas=(0.9, 0.98))
    values, old = torch.tensor([[fisher, 1.0]]), torch.ones(1, 2)
    hold = Consolidation(layer, optimiser, {"weight": values}, {"weight": old}, start, strength)
    layer(torch.randn(3, 2)).sum().backward()
    optimiser.step()
    moved = layer.weight.detach().clone()
    hold()
    scale = (optimiser.state[layer.weight]["exp_avg_sq"] / (1 - 0.98)).sqrt() + 1e-8
    weight = strength * (values + FLOOR * values.mean())
    slope = scale / 0.1 * (layer.weight - moved) + weight * (layer.weight - start["weight"])
    assert torch.allclose(slope, torch.zeros(1, 2), atol=1e-3 * float((scale / 0.1 + weight).max()))


def test_rows_that_hardly_matter_are_held_and_new_rows_are_free() -> None:
    rows = torch.nn.Embedding(3, 1)
    start = {"weight": rows.weight.detach().clone()}
    optimiser = torch.optim.AdamW(rows.parameters(), lr=0.1, weight_decay=0.0)
    old = torch.tensor([[1.0], [1.0], [0.0]])
    fisher = torch.tensor([[1.0], [0.0], [0.0]])
    hold = Consolidation(rows, optimiser, {"weight": fisher}, {"weight": old}, start, 1e4)
    (rows.weight.sum() * 1e-6).backward()  # type: ignore[no-untyped-call] # Adam makes a step of its full size of any gradient
    optimiser.step()
    hold()
    moved = (rows.weight.detach() - start["weight"]).abs()[:, 0]
    assert float(moved[1]) < 1e-3 and float(moved[2]) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_every_new_event_is_a_target_once_an_epoch_and_old_ones_are_a_bounded_sample(share: float) -> None:
    log = sequences(tiny_dataset(users=30, max_events=25))
    border = int(np.quantile(log.time_ms, 0.7))
    learned = learned_events(log, log, border, "time")
    slow = [int((log.time_ms[log.user(u)] < border).sum()) for u in range(log.n_users)]
    assert learned.count.tolist() == slow
    plan = ReplayPlan(learned, 9, 4, 100, 0, share=share)
    for epoch in range(3):
        new: Counter[tuple[int, int]] = Counter()
        old = 0
        for batch in plan.batches(epoch, log.n_items + 1):
            for user, targets, times, gaps in zip(batch.user, batch.target, batch.time_ms, batch.gap_ms, strict=True):
                for target, time, gap in zip(targets.tolist(), times.tolist(), gaps.tolist(), strict=True):
                    if target != NO_TARGET:
                        late = time + max(gap, 0) >= border
                        new[int(user), time + max(gap, 0)] += late
                        old += not late
        events = [(u, int(t)) for u in range(log.n_users) for t in log.time_ms[log.user(u)] if t >= border]
        assert +new == Counter(events)
        assert (old > 0) == (share > 0) and old <= LEAST_REPLAYED
    assert [rows.tolist() for rows in plan.epoch(1)] == [rows.tolist() for rows in plan.epoch(1)]


def test_leave_one_out_counts_what_may_have_been_held_out_as_new() -> None:
    log = sequences(tiny_dataset(users=10))
    count = learned_events(log, log, 2**62, "leave_one_out").count
    assert count.tolist() == [n - 2 if n >= 3 else n for n in log.lengths]


def test_new_items_get_free_paths_near_their_content_and_elsewhere_where_the_cells_are_full() -> None:
    contents = [ItemContent((f"c{i % 2}",)) for i in range(6)]
    tokenizer = HierarchicalTokenizer.fit(contents)
    one, far = tokenizer.extended([ItemContent(("c1",))])
    assert far == 0 and one.codes[-1, 0] == tokenizer.codes[1, 0] and len(tokenizer.codes) == 6
    full = HierarchicalTokenizer(tokenizer.codes, [3, 3], tokenizer.names, tokenizer.depth)
    other, far = full.extended([ItemContent(("c1",))] * 0)
    assert far == 0 and len(other.codes) == 6
    with pytest.raises(ValueError, match="all paths of the hierarchical tokenizer are taken"):
        full.extended([ItemContent(("c1",))])
    room = HierarchicalTokenizer(tokenizer.codes[:5], [3, 3], tokenizer.names, tokenizer.depth)
    placed, far = room.extended([ItemContent(("c0",))])
    assert far == 1 and len(np.unique(placed.codes, axis=0)) == 6
    with pytest.raises(ValueError, match="all paths of the atomic tokenizer"):
        AtomicTokenizer.fit(3).extended([ItemContent()])


def test_the_strongest_that_validation_cannot_tell_from_the_best_is_taken() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    noise = rng.normal(size=400)
    gains = {0.01: base, 0.1: base - 0.001 * (noise - noise.mean() + 0.02), 1.0: base - 0.2 * rng.random(400)}
    assert strongest_alike(gains) == 0.1
    assert strongest_alike({0.5: np.zeros(1), 1.0: np.zeros(1)}) == 1.0
    assert math.isclose(strongest_alike({0.3: base}), 0.3)
