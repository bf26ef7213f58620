"""What a request adds: its context and the gap before it change the query, and nothing that is not known does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.network.config import SIZES, NetworkConfig
from model.network.gpt4rec import GPT4Rec
from service.artifact.features import GAP_UNKNOWN
from tests.support.networks import random_network


@pytest.fixture(scope="module")
def model() -> GPT4Rec:
    return random_network().requires_grad_(False)


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


def query(model: GPT4Rec, h: Tensor, context: list[int], gap_ms: int = GAP_UNKNOWN) -> Tensor:
    q: Tensor = model.query(h, torch.tensor(context).expand(len(h), -1), torch.full((len(h),), gap_ms))
    return q


def test_an_unknown_value_is_no_value(hidden: Tensor) -> None:
    """Row 0 of the context table is never read, whatever it holds."""
    model = random_network().requires_grad_(False)
    before = query(model, hidden, [0, 0, 0])
    model.context.table.weight[0] = 99.0
    model.context.slot[1] = 7.0
    assert torch.equal(query(model, hidden, [0, 0, 0]), before)
    model.context.gap.weight.fill_(3.0)
    model.context.gap_known.fill_(3.0)
    assert torch.equal(query(model, hidden, [0, 0, 0]), before)


def test_context_and_gap_change_the_query_of_their_own_row_only(model: GPT4Rec, hidden: Tensor) -> None:
    plain = query(model, hidden, [0, 0, 0])
    for given_context, gap in (([1, 0, 0], GAP_UNKNOWN), ([0, 0, 3], GAP_UNKNOWN), ([0, 0, 0], 60_000)):
        context = torch.zeros(4, 3, dtype=torch.int64)
        context[2] = torch.tensor(given_context)
        gaps = torch.tensor([GAP_UNKNOWN, GAP_UNKNOWN, gap, GAP_UNKNOWN])
        q = model.query(hidden, context, gaps)
        assert torch.equal(q[[0, 1, 3]], plain[[0, 1, 3]])
        assert (q[2] - plain[2]).abs().max() > 1e-4


def test_a_known_gap_of_zero_is_not_an_unknown_gap(hidden: Tensor) -> None:
    model = random_network().requires_grad_(False)
    model.context.gap_known.fill_(0.5)
    known, unknown = (query(model, hidden, [0, 0, 0], gap) for gap in (0, GAP_UNKNOWN))
    assert (known - unknown).abs().max() > 1e-4


def test_a_fresh_network_ignores_its_context(hidden: Tensor) -> None:
    """The modulation starts at zero, so an untrained context does no harm."""
    config = NetworkConfig(3, (3,), n_types=6, n_context_rows=5, n_slots=3, **SIZES["tiny"])
    model = GPT4Rec(config, torch.tensor([[0], [1], [2]])).requires_grad_(False)
    assert torch.equal(query(model, hidden, [1, 2, 3], 5000), query(model, hidden, [0, 0, 0]))
