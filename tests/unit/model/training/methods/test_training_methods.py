"""Each training method against loops that say the same, and what it changes in the training of a tiny network."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.data.dataset import Sequences, sequences
from model.errors import ConfigError, RunError
from model.training.batch_loss import BatchLoss
from model.training.batches import NO_TARGET, Batch, BatchPlan, cut
from model.training.config import TrainConfig
from model.training.losses import full_softmax, proposal, sampled_softmax
from model.training.methods.adversarial import generator_state, repeated_draws, worst_change
from model.training.methods.contrast import contrast
from model.training.methods.distillation import divergence
from model.training.methods.diversity import repulsion
from model.training.methods.item_distillation import ItemDistillation
from model.training.methods.meta_start import adapted_loss
from model.training.methods.negatives import SOURCES, Proposals
from model.training.methods.pretraining import attribute_loss, masked_inputs
from model.training.methods.random_clicks import with_random_clicks
from model.training.methods.registry import TERMS
from model.training.methods.scheduled_sampling import sampled_path_logits
from model.training.methods.truncation import NEWEST, age, importance, truncated
from model.training.methods.views import VIEWS, batch_of, sequence_of
from model.training.positions import Moment, Setup
from model.training.trainer import Trainer
from service.artifact.features import START_TYPE
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

pytestmark = pytest.mark.usefixtures("one_thread")

DATASET = tiny_dataset(users=40)
LOG = sequences(DATASET)
QUICK: dict[str, Any] = {
    "size": "tiny", "batch_tokens": 200, "learning_rate": 1e-2, "warmup_steps": 2, "max_epochs": 1, "max_length": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer(DATASET, Path("data"), tmp_path_factory.mktemp("methods") / "run", TrainConfig(**QUICK))
    trainer.fit()
    return trainer


@pytest.fixture(scope="module")
def batch(trainer: Trainer) -> Batch:
    return next(trainer.plan.batches(0, trainer.network.n_items + 1))


def loss_with(trainer: Trainer, batch: Batch, moment: Moment = Moment(5, 1.0), **methods: Any) -> Tensor:
    """The loss of a batch with some methods, from the same weights and the same draws."""
    config = trainer.config.updated({f"methods.{name}": value for name, value in methods.items()})
    setup = Setup(trainer.model, config, trainer.conditions, DATASET, trainer.learned, trainer.log_q)
    loss = BatchLoss(trainer.model, trainer.conditions, config, trainer.log_q, setup)
    torch.manual_seed(3)
    return loss(batch, moment)[0]


# -- views


def rows_of(batch: Batch) -> list[list[tuple[int, int, int]]]:
    """The sequences of a batch: (item, type, time) of every event, the last target included."""
    rows = []
    for row in range(len(batch.item)):
        n = max(t for t in range(batch.item.shape[1]) if int(batch.target[row, t]) != NO_TARGET) + 1
        events = [(int(batch.item[row, t]), int(batch.type[row, t]), int(batch.time_ms[row, t])) for t in range(n)]
        last = int(batch.time_ms[row, n - 1]) + max(0, int(batch.gap_ms[row, n - 1]))
        rows.append([*events, (int(batch.target[row, n - 1]), int(batch.target_type[row, n - 1]), last)])
    return rows


def test_a_batch_is_the_same_after_it_was_taken_apart(batch: Batch) -> None:
    again = batch_of(sequence_of(batch, 30), batch)
    assert rows_of(again) == rows_of(batch)
    known = batch.target != NO_TARGET
    for name in ("target", "gap_ms", "scene", "target_type"):
        assert torch.equal(getattr(again, name)[known], getattr(batch, name)[known]), name
    assert torch.equal(again.target != NO_TARGET, known)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("cut_into", [4, 12])
def test_a_view_is_a_crop_a_mask_or_a_reordering_of_the_same_events(name: str, cut_into: int) -> None:
    torch.manual_seed(cut_into)
    plan = BatchPlan(cut(LOG, cut_into, cut_into // 2), 120, 0)
    unknown, changed = LOG.n_items, 0
    for batch in itertools.islice(plan.batches(0, unknown + 1), 3):
        view = batch_of(VIEWS[name](sequence_of(batch, unknown)), batch)
        assert bool(((view.target != NO_TARGET).sum(dim=1) >= 1).all()), "every row still has something to learn"
        for before, after in zip(rows_of(batch), rows_of(view), strict=True):
            changed += before != after
            if name == "crop":
                assert any(before[i : i + len(after)] == after for i in range(len(before)))
            elif name == "mask":
                assert len(before) == len(after)
                assert all(a == b or a == (unknown, *b[1:]) for b, a in zip(before, after, strict=True))
            else:
                assert [event[2] for event in after] == [event[2] for event in before]
                assert sorted(event[:2] for event in after) == sorted(event[:2] for event in before)
                assert (after[0][1] == START_TYPE) == (before[0][1] == START_TYPE)
                moved = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if b[:2] != a[:2]]
                assert not moved or moved[-1] - moved[0] < max(2, math.ceil(0.3 * len(before)))
        given = view.item[:, 1:][(view.target[:, :-1] != NO_TARGET)]
        assert torch.equal(given, view.target[:, :-1][view.target[:, :-1] != NO_TARGET]), "a target is the next input"
    assert changed


# -- formulas against loops


def test_the_contrast_is_the_one_of_the_paper() -> None:
    torch.manual_seed(0)
    first, second, user = torch.randn(3, 5), torch.randn(3, 5), torch.tensor([7, 8, 7])
    views, users = [*first, *second], [7, 8, 7, 7, 8, 7]
    total = 0.0
    for a in range(6):
        b = (a + 3) % 6
        terms = {
            c: math.exp(float(torch.cosine_similarity(views[a], views[c], dim=0)) / 0.5)
            for c in range(6) if c == b or users[c] != users[a]
        }  # fmt: skip
        total -= math.log(terms[b] / sum(terms.values()))
    assert float(contrast(first, second, user)) == pytest.approx(total / 6, abs=1e-5)


def test_the_diversity_regulariser_is_the_one_of_the_course() -> None:
    torch.manual_seed(0)
    q, user = torch.randn(4, 6), torch.tensor([0, 1, 1, 2])
    pairs = [(i, j) for i in range(4) for j in range(4) if user[i] != user[j]]
    costs = [-math.log(1 - float(torch.cosine_similarity(q[i], q[j], dim=0))) for i, j in pairs]
    assert float(repulsion(q, user)) == pytest.approx(sum(costs) / len(costs), abs=1e-5)


def test_the_diversity_regulariser_drives_queries_apart() -> None:
    torch.manual_seed(0)
    q = (torch.ones(4, 6) + 0.1 * torch.randn(4, 6)).requires_grad_()
    user = torch.arange(4)
    repulsion(q, user).backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None
    assert float(repulsion(q.detach() - 0.5 * q.grad, user)) < float(repulsion(q.detach(), user))


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(3, 9), torch.randn(3, 9)
    p, log_q = torch.softmax(teacher / 2, -1), torch.log_softmax(student / 2, -1)
    by_hand = 4 * sum(float((p[i] * (p[i].log() - log_q[i])).sum()) for i in range(3)) / 3
    assert float(divergence(student, teacher, 2.0)) == pytest.approx(by_hand, abs=1e-5)
    assert float(divergence(teacher, teacher, 2.0)) == pytest.approx(0.0, abs=1e-6)


def test_an_attribute_is_scored_by_the_mean_of_its_items() -> None:
    torch.manual_seed(0)
    q, table = torch.randn(2, 4), torch.randn(5, 4)  # three items, the unknown one and the start token
    attributes = torch.tensor([[1, 2], [2, 0], [0, 0]])
    means = torch.stack([table[0], (table[0] + table[1]) / 2])
    log_p = torch.log_softmax(q @ means.T, -1)
    both = attribute_loss(q, table, torch.tensor([0, 1]), attributes)
    assert float(both) == pytest.approx(-float((log_p[0].mean() + log_p[1, 1]) / 2), abs=1e-5)
    assert float(attribute_loss(q, table, torch.tensor([2, 2]), attributes)) == 0.0


def test_every_row_masks_an_event_and_never_its_start_token(batch: Batch) -> None:
    torch.manual_seed(0)
    item, masked, length = masked_inputs(batch, 30, share=0.0)
    has_event = [n > 1 or int(kind[0]) != START_TYPE for n, kind in zip(length.tolist(), batch.type, strict=True)]
    assert masked.sum(dim=1).tolist() == [int(has) for has in has_event]
    assert not bool((masked & (batch.type == START_TYPE)).any())
    assert torch.equal(item, torch.where(masked, 30, batch.item))


# -- negatives


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_of_negatives_estimates_the_full_softmax(source: str) -> None:
    torch.manual_seed(1)
    rng = np.random.default_rng(0)
    events = np.concatenate([np.arange(12), rng.choice(12, size=400, p=np.arange(1, 13) / 78)])
    proposals = Proposals.of(proposal(events, np.ones(12, bool)))
    counted = torch.from_numpy(np.bincount(events, minlength=12) / len(events)).float()
    assert torch.allclose(proposals.popular.exp(), counted, atol=1e-5)
    q, table = torch.randn(100, 4), torch.randn(14, 4)
    targets = torch.from_numpy(rng.choice(events, size=20_000))
    drawn, target = SOURCES[source](proposals, 20_000, targets), targets[:100]
    estimate = sampled_softmax(q, table[target], table[drawn.item], drawn.log_q[target], drawn.log_q[drawn.item])
    assert float(estimate) == pytest.approx(float(full_softmax(q, table, target, 0.0)), abs=0.1)


# -- the decoder's inputs


def test_scheduled_sampling_reads_the_true_path_or_the_own_one() -> None:
    model = random_network(n_items=40).requires_grad_(False)
    q, codes = torch.randn(6, 32), model.codes[:6]
    truth = model.path_logits(q, codes)
    assert all(torch.equal(a, b) for a, b in zip(sampled_path_logits(model, q, codes, 0.0), truth, strict=True))
    torch.manual_seed(4)
    own = sampled_path_logits(model, q, codes, 1.0)
    torch.manual_seed(4)
    s = model.begin(q)
    for level, got in enumerate(own):
        logits = model.level_logits(level, s)
        assert torch.allclose(got, logits, atol=1e-6)
        if level + 1 < model.config.levels:
            token = torch.multinomial(logits.softmax(-1), 1)[:, 0]
            torch.rand(len(q))
            s = model.step(level, s, token)


# -- the log


def test_random_clicks_leave_the_true_events_in_order() -> None:
    noisy = with_random_clicks(LOG, 0.5, seed=1)
    assert noisy.n_events == LOG.n_events + round(0.5 * LOG.n_events)
    for u in range(LOG.n_users):
        true = list(zip(LOG.item[LOG.user(u)].tolist(), LOG.time_ms[LOG.user(u)].tolist(), strict=True))
        found = iter(zip(noisy.item[noisy.user(u)].tolist(), noisy.time_ms[noisy.user(u)].tolist(), strict=True))
        assert all(event in found for event in true), "the true events are a subsequence"
        assert (np.diff(noisy.time_ms[noisy.user(u)]) >= 0).all()
    assert with_random_clicks(LOG, 0.0, seed=1) is LOG


def test_truncation_keeps_the_newest_or_what_matters() -> None:
    newest = truncated(LOG, 4, "newest", 0)
    important = truncated(LOG, 4, "important", 0)
    for u in range(LOG.n_users):
        whole = LOG.item[LOG.user(u)].tolist()
        assert newest.item[newest.user(u)].tolist() == whole[-4:]
        kept = important.item[important.user(u)].tolist()
        assert len(kept) == min(4, len(whole))
        assert kept[-int(4 * NEWEST) :] == whole[-int(4 * NEWEST) :]
        left = iter(whole)
        assert all(item in left for item in kept), "in their order"
    assert truncated(LOG, 0, "newest", 0) is LOG


def test_importance_is_the_formula_of_its_page() -> None:
    weight = importance(LOG, 4)
    users: dict[int, set[int]] = {}
    for u in range(LOG.n_users):
        for item in LOG.item[LOG.user(u)].tolist():
            users.setdefault(item, set()).add(u)
    for row in range(0, LOG.n_events, 7):
        kind = 2.0 if LOG.type[row] == _purchase(LOG) else 1.0
        rare = math.log1p(LOG.n_users / len(users[int(LOG.item[row])]))
        assert weight[row] == pytest.approx(2 ** (-age(LOG)[row] / 4) * rare * kind)


def _purchase(log: Sequences) -> int:
    return int(log.type[log.user(0)][3])  # every fourth event of the log


# -- vectors


def test_rare_items_are_drawn_to_the_popular_ones_that_are_like_them(trainer: Trainer) -> None:
    setup = Setup(trainer.model, trainer.config, trainer.conditions, DATASET, trainer.learned, trainer.log_q)
    term = ItemDistillation(setup)
    seen = np.bincount(trainer.learned.item, minlength=LOG.n_items)
    assert len(term.items) > 0
    assert (seen[term.items.numpy()] < 10).all()
    table = trainer.model.item_table().detach().requires_grad_()
    distance = term.distance(table)
    (gradient,) = torch.autograd.grad(distance, table)
    moved = gradient.abs().sum(dim=1) > 0
    assert set(moved.nonzero()[:, 0].tolist()) <= set(term.items.tolist()), "popular items stay"
    assert float(term.distance((table - 0.1 * gradient).detach())) < float(distance.detach())


def test_the_meta_gradient_is_that_of_the_adapted_vector() -> None:
    torch.manual_seed(0)
    start, q, table = torch.randn(4, requires_grad=True), torch.randn(6, 4), torch.randn(7, 4)
    target, rate = torch.tensor([2, 1, 2, 2, 0, 2]), 0.3

    def loss(vector: Tensor, rows: list[int]) -> Tensor:
        own = torch.cat([table[:2], vector[None], table[3:-2]])
        return torch.nn.functional.cross_entropy(q[rows] @ own.T, torch.full((len(rows),), 2))

    (meta,) = torch.autograd.grad(adapted_loss(start, q, table, target, 2, rate), start)
    (step,) = torch.autograd.grad(loss(start, [0, 3]), start)
    adapted = (start - rate * step).detach().requires_grad_()
    (wanted,) = torch.autograd.grad(loss(adapted, [2, 5]), adapted)
    assert torch.allclose(meta, wanted, atol=1e-6)


def test_the_worst_change_raises_the_loss_more_than_chance_and_draws_nothing_new(
    trainer: Trainer, batch: Batch
) -> None:
    config = trainer.config
    loss_of = BatchLoss(trainer.model, trainer.conditions, config, trainer.log_q)

    def loss(change: Tensor | None = None) -> tuple[Tensor, Tensor]:
        at = loss_of.positions(batch, change)
        return full_softmax(at.q, at.table, at.target, 0.0), at.table

    state = generator_state()
    plain, table = loss()
    change = worst_change(plain, table, 0.1)
    assert torch.allclose(change.norm(dim=1)[:-2].amax(), 0.1 * table.norm(dim=1).mean(), rtol=1e-4)
    chance = torch.randn_like(change)
    chance *= change.norm(dim=1, keepdim=True) / chance.norm(dim=1, keepdim=True)
    with repeated_draws(state):
        assert float(loss()[0].detach()) == float(plain.detach())
    with repeated_draws(state):
        worst = float(loss(change)[0].detach())
    with repeated_draws(state):
        random = float(loss(chance)[0].detach())
    assert worst > max(random, float(plain.detach()))


# -- in the trainer


def test_bfloat16_is_close_to_float32_and_keeps_weights_and_loss_in_float32(trainer: Trainer, batch: Batch) -> None:
    whole, half = loss_with(trainer, batch), loss_with(trainer, batch, precision="bfloat16")
    assert half.dtype == torch.float32
    assert float(half.detach()) == pytest.approx(float(whole.detach()), rel=0.02)
    trainer.model.zero_grad()
    half.backward()  # type: ignore[no-untyped-call]
    assert {p.grad.dtype for p in trainer.model.parameters() if p.grad is not None} == {torch.float32}


METHODS = [
    {"augment": 0.5}, {"contrast": 0.1}, {"negatives": "batch_mixed"}, {"scheduled_sampling": 1.0}, {"diversity": 0.1},
    {"item_teacher": 0.1}, {"adversarial": 1.0}, {"meta_start": 0.1}, {"pretrain_epochs": 9},
]  # fmt: skip


@pytest.mark.parametrize("methods", METHODS, ids=lambda methods: next(iter(methods)))
def test_every_method_changes_the_loss_and_trains_the_network(
    trainer: Trainer, batch: Batch, methods: dict[str, Any]
) -> None:
    plain, loss = loss_with(trainer, batch), loss_with(trainer, batch, **methods)
    assert float(loss.detach()) != float(plain.detach())
    model = copy.deepcopy(trainer.model.state_dict())
    trainer.model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert all(torch.equal(value, model[name]) for name, value in trainer.model.state_dict().items())


def test_a_method_that_is_off_draws_nothing(trainer: Trainer, batch: Batch) -> None:
    torch.manual_seed(3)
    plain = BatchLoss(trainer.model, trainer.conditions, trainer.config, trainer.log_q)(batch)[0]
    assert float(plain.detach()) == float(loss_with(trainer, batch).detach())


def test_masked_events_see_both_sides_in_pretraining_alone(trainer: Trainer) -> None:
    model = trainer.average
    item = torch.tensor([[1, 2, 3, 4]])
    type_, time = torch.zeros_like(item), torch.arange(4)[None] * 3_600_000
    other = item.clone()
    other[0, 3] = 9
    masking = {"masked": item == 2, "length": torch.tensor([4])}
    assert torch.allclose(model(item, type_, time)[0, 1], model(other, type_, time)[0, 1])
    both = model(item, type_, time, **masking)[0, 1]
    assert not torch.allclose(both, model(other, type_, time, **masking)[0, 1])
    longer = torch.cat([item, torch.tensor([[7]])], dim=1)
    times = torch.arange(5)[None] * 3_600_000
    padded = model(longer, torch.zeros_like(longer), times, masked=longer == 2, length=torch.tensor([4]))[0, 1]
    assert torch.allclose(both, padded, atol=1e-5), "no event sees the padding"


def test_a_student_learns_from_a_finished_run_of_the_same_data_alone(trainer: Trainer, batch: Batch) -> None:
    taught = loss_with(trainer, batch, teacher=str(trainer.folder), distil=1.0)
    assert float(taught.detach()) > float(loss_with(trainer, batch).detach())
    config = trainer.config.updated({"methods.teacher": str(trainer.folder)})
    other = tiny_dataset(users=41)
    setup = Setup(trainer.model, config, trainer.conditions, other, trainer.learned, trainer.log_q)
    with pytest.raises(RunError, match="trained on other data"):
        BatchLoss(trainer.model, trainer.conditions, config, trainer.log_q, setup)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods.contrst": 1.0}, r"did you mean 'methods.contrast'"),
        ({"methods.augment": 2.0}, r"methods.augment must be between 0 and 1, got 2.0"),
        ({"methods.negatives": "hard"}, r"methods.negatives 'hard' is unknown; choose one of mixed, uniform"),
        ({"methods.negatives": "batch", "negatives": 0}, "leave negatives out"),
        ({"methods.contrast": "much"}, "methods.contrast must be float"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig().updated(values)


def test_methods_are_saved_with_the_configuration(tmp_path: Path) -> None:
    made = TrainConfig.build(None, ["methods.contrast=0.1", "methods.negatives=batch"])
    made.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == made
    assert made.method_settings().contrast == 0.1
    assert all(hasattr(made.method_settings(), name) for name in TERMS)
