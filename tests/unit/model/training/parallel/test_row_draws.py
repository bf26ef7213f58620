"""Random numbers that follow (step, row): the same for a row in whichever part of a batch it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from model.errors import RunError
from model.training.parallel.row_draws import RowDraws, mixed, step_key

ROWS = torch.arange(12)


def dropped(key: int, low: int = 0, high: int = 12) -> torch.Tensor:
    with RowDraws(key).along(ROWS[low:high]):
        out: torch.Tensor = nn.Dropout(0.3)(torch.ones(high - low, 5, 7))
        return out


def test_a_part_of_the_rows_drops_what_all_of_them_drop() -> None:
    whole = dropped(step_key(0, 3))
    assert torch.equal(torch.cat([dropped(step_key(0, 3), 0, 5), dropped(step_key(0, 3), 5, 12)]), whole)


def test_steps_seeds_and_draws_differ() -> None:
    one = dropped(step_key(0, 3))
    assert not torch.equal(one, dropped(step_key(0, 4)))
    assert not torch.equal(one, dropped(step_key(1, 3)))
    with RowDraws(step_key(0, 3)).along(ROWS):
        assert not torch.equal(torch.rand(12, 4), torch.rand(12, 4))


def test_the_share_that_is_dropped_and_the_mean_are_those_of_dropout() -> None:
    with RowDraws(step_key(0, 1)).along(torch.arange(400)):
        out = nn.Dropout(0.3)(torch.ones(400, 250))
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)


def test_numbers_are_uniform_and_neighbouring_rows_and_places_do_not_follow_each_other() -> None:
    drawn = RowDraws(step_key(0, 1)).uniform((300, 300), torch.arange(300))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.histc(drawn, 20, 0, 1) / drawn.numel()
    assert (counts - 0.05).abs().max() < 0.004
    for one, other in ((drawn[:-1], drawn[1:]), (drawn[:, :-1], drawn[:, 1:])):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()) < 0.01


def test_bits_are_a_permutation() -> None:
    assert len(set(mixed(torch.arange(100_000)).tolist())) == 100_000


def test_attention_weights_are_dropped_by_rows() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 2, 5, 8)
    mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)

    def attended(low: int, high: int) -> torch.Tensor:
        part = slice(low, high)
        with RowDraws(9).along(ROWS[part]):
            return F.scaled_dot_product_attention(q[part], k[part], v[part], attn_mask=mask, dropout_p=0.4)

    assert torch.allclose(torch.cat([attended(0, 1), attended(1, 4)]), attended(0, 4), atol=1e-6)
    with RowDraws(9).along(ROWS[:4]):
        kept = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=1e-9)
    assert torch.allclose(kept, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), atol=1e-5)


def test_without_training_nothing_is_dropped() -> None:
    with RowDraws(0).along(ROWS):
        assert torch.equal(nn.Dropout(0.5).eval()(torch.ones(3)), torch.ones(3))


@pytest.mark.parametrize(
    "draw", [lambda: nn.Dropout(0.5)(torch.ones(11, 2)), lambda: torch.randn(12), lambda: torch.rand(3)]
)
def test_a_draw_that_cannot_follow_rows_is_an_error(draw: object) -> None:
    with RowDraws(0).along(ROWS), pytest.raises(RunError, match="does not follow the rows"):
        draw()  # type: ignore[operator]
