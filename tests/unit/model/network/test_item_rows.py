"""The item table in parts, in a group of one process: what it looks up, where it starts, and the softmax over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from model.network.item_rows import BLOCK, STD, ItemParts, ItemRows
from model.training.losses import sampled_softmax
from model.training.parallel.processes import joined
from model.training.parallel.shared_softmax import SharedSoftmax

pytestmark = pytest.mark.usefixtures("one_thread", "group")


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    with joined():
        yield


def both(n_items: int, d: int = 4) -> tuple[ItemParts, ItemRows]:
    parts, rows = ItemParts(n_items, d, torch.device("cpu"), seed=1), ItemRows(n_items + 2, d)
    with torch.no_grad():
        rows.weight.copy_(parts.own)
    return parts, rows


def test_rows_and_their_gradient_are_those_of_the_whole_table() -> None:
    parts, rows = both(9)
    asked, weight = torch.tensor([0, 3, 8]), torch.randn(3, 4)
    for table in (parts, rows):
        known, beside = table.looked_up(asked)
        ((known * weight).sum() + beside.sum()).backward()  # type: ignore[no-untyped-call]
    known, beside = parts.looked_up(asked)
    assert torch.equal(known, rows(asked))
    assert torch.equal(beside, rows.weight[-2:])
    assert rows.weight.grad is not None
    assert torch.equal(parts.weight.grad.to_local(), rows.weight.grad)  # type: ignore[union-attr]


def test_nobody_has_the_whole_table() -> None:
    with pytest.raises(RuntimeError, match="no process has all of it"):
        both(3)[0].looked_up(None)


def test_rows_start_by_their_numbers() -> None:
    long, short = both(BLOCK + 50)[0].own, both(40)[0].own
    assert torch.equal(long[:42], short)
    assert long.std().item() == pytest.approx(STD, rel=0.05)
    assert not torch.equal(long[:40], long[BLOCK : BLOCK + 40])


def test_vectors_start_rows_at_the_length_of_the_others() -> None:
    parts = ItemParts(BLOCK + 10, 4, torch.device("cpu"))
    before = parts.own.detach().clone()
    vectors = torch.nn.functional.normalize(torch.randn(BLOCK + 10, 3), dim=1)
    vectors[5] = 0
    parts.start_from(vectors)
    mean = before[:-2].norm(dim=1).mean()
    assert torch.allclose(parts.own[BLOCK + 3, :3], vectors[BLOCK + 3] * mean)
    assert torch.equal(parts.own[:, 3], before[:, 3])
    assert torch.equal(parts.own[[5, -2, -1]], before[[5, -2, -1]])


def test_the_shared_softmax_is_the_sampled_softmax() -> None:
    torch.manual_seed(0)
    log_q = torch.randn(20).log_softmax(dim=0)
    target, drawn = torch.tensor([3, 7, 7, 19, 0]), torch.randint(20, (12,))
    found = []
    for shared in (True, False):
        torch.manual_seed(1)
        q, table = torch.randn(5, 4, requires_grad=True), torch.randn(20, 4, requires_grad=True)
        if shared:
            softmax = SharedSoftmax(table[drawn], log_q[drawn], len(drawn), log_q, len(q), 0, table[target])
            loss = softmax(q, target)
        else:
            loss = sampled_softmax(q, table[target], table[drawn], log_q[target], log_q[drawn])
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss, q.grad, table.grad))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    q, target = torch.full((2, 1), 200.0), torch.tensor([0, 1])
    table, log_q = torch.tensor([[1.0], [3.0], [2.0]]), torch.zeros(3)
    loss = SharedSoftmax(table, log_q, 3, log_q, 2, 0, table[target])(q, target)
    assert loss.item() == pytest.approx(sampled_softmax(q, table[target], table, log_q[target], log_q).item())
