"""Random numbers that follow (step, global row), not the order in which a process comes to them.

A process that computes some rows of a batch drops the same units of them as one that computes all. Within `RowDraws`,
dropout and `torch.rand` of the network hash (seed, step, number of the draw, row, place in the row); a draw that cannot
follow rows is an error instead of a silent difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from model.errors import RunError

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
# Random functions that take no rows: what they draw would differ between one process and several.
_REFUSED = (
    torch.rand_like, torch.randn, torch.randn_like, torch.randint, torch.randint_like, torch.randperm, torch.bernoulli,
    torch.multinomial, torch.normal, torch.poisson, torch.dropout, torch.alpha_dropout, F.dropout1d, F.dropout2d,
    F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, F.gumbel_softmax, Tensor.bernoulli_, Tensor.uniform_,
    Tensor.normal_, Tensor.random_, Tensor.exponential_, Tensor.multinomial, Tensor.bernoulli,
)  # fmt: skip


def step_key(seed: int, step: int) -> int:
    """Returns a key of 63 bits that differs for every (seed, step)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def mixed(x: Tensor) -> Tensor:
    """Returns 32 well mixed bits of each of int64 `x` ("lowbias32", Wellons, 2018)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


class RowDraws(TorchFunctionMode):
    """The random numbers of a step, drawn by rows.

    Args:
        key: The key of the step, from `step_key`.
    """

    def __init__(self, key: int) -> None:
        super().__init__()
        self._key, self._draws = key, 0
        self._rows: Tensor | None = None

    @contextmanager
    def along(self, rows: Tensor) -> Iterator[None]:
        """What is drawn within has one row of `rows` for each entry of its first dimension.

        Args:
            rows: [n] int64 numbers of the rows, the same for a row in whichever process it is.
        """
        before, self._rows = self._rows, rows
        with self:
            try:
                yield
            finally:
                self._rows = before

    def uniform(self, size: Sequence[int], rows: Tensor) -> Tensor:
        """Returns float32 numbers in [0, 1), of a size whose first dimension is that of `rows`."""
        self._draws += 1
        low, high = self._key & _MASK, (self._key >> 32) & _MASK
        of_draw = mixed(mixed(torch.tensor(low + self._draws * _GOLDEN)) ^ high).to(rows.device)
        of_row = mixed(mixed(rows * _GOLDEN + of_draw) + (rows >> 32))
        place = torch.arange(math.prod(size[1:]), device=rows.device) * _GOLDEN
        bits = mixed(of_row[:, None] + place)
        return ((bits >> 8).float() * 2.0**-24).view(*size)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.dropout:
            return self._dropout(*args, **given)
        if func is F.scaled_dot_product_attention and given.get("dropout_p", 0.0):
            return self._attention(*args, **given)
        if func is torch.rand:
            size = args[0] if args and not isinstance(args[0], int) else args
            return self.uniform(list(size), self._checked(size))
        if func in _REFUSED:
            raise self._cannot(getattr(func, "__name__", str(func)))
        return func(*args, **given)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, **_how: bool) -> Tensor:
        if not training or p == 0.0:
            return x
        kept = self.uniform(x.shape, self._checked(x.shape)) >= p
        return x * (kept.to(x.dtype) / (1.0 - p))

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **given: Any) -> Tensor:
        """Attention with dropout of its weights, which torch's kernel would draw by itself."""
        p = given.pop("dropout_p")
        if given.get("is_causal") or given.get("enable_gqa"):
            raise self._cannot("scaled_dot_product_attention with is_causal or enable_gqa")
        score = (q @ k.transpose(-2, -1)) * (given.get("scale") or q.shape[-1] ** -0.5)
        if attn_mask is not None:
            score = score.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else score + attn_mask
        return self._dropout(torch.softmax(score, dim=-1), p) @ v

    def _checked(self, size: Sequence[int]) -> Tensor:
        if self._rows is None or not size or size[0] != len(self._rows):
            known = None if self._rows is None else len(self._rows)
            raise self._cannot(f"a draw of size {tuple(size)} beside {known} rows")
        return self._rows

    @staticmethod
    def _cannot(what: str) -> RunError:
        return RunError(
            f"what the network draws does not follow the rows of a batch ({what}), so several processes would differ",
            fix="train this configuration without torchrun, or set network.dropout=0",
        )
