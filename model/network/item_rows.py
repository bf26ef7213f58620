"""The id embeddings of items: whole, or in parts that several processes have.

The table is what grows with a catalogue: [N + 2, d] floats, and as much again for its gradient, its moving average and
each of the two moments of the optimiser. `ItemParts` keeps N / processes of all of them (a DTensor, by rows).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

# Rows that are drawn from one seed, so that a row starts the same in whichever part it is.
BLOCK = 4096
STD = 0.05


class ItemRows(nn.Embedding):
    """The whole table [N + 2, d]; row N is the unknown item, row N + 1 the start token of a history."""

    def looked_up(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the embeddings of items [R, d], all N without `rows`, and those of the last two rows [2, d]."""
        return self.weight[:-2] if rows is None else self(rows), self.weight[-2:]


class ItemParts(nn.Module):
    """A part of the table; the other processes of the default group have the others.

    Attributes:
        weight: [N + 2, d] DTensor, of which this process has the rows `low` to `high`.
        low: Its first row.
        high: The row after its last one.
    """

    def __init__(self, n_items: int, d_model: int, device: torch.device, seed: int = 0) -> None:
        """Draws the rows of this process from a normal distribution, as those of a whole table are.

        Args:
            n_items: N.
            d_model: d.
            device: Where they are.
            seed: What they are drawn from, together with their number.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import DTensor, Shard

        super().__init__()
        n, world, rank = n_items + 2, dist.get_world_size(), dist.get_rank()
        size = -(-n // world)  # as `torch.chunk` divides, which DTensor expects
        self.n_items, self.low, self.high = n_items, min(rank * size, n), min((rank + 1) * size, n)
        own = torch.empty(self.high - self.low, d_model, device=device)
        for start in range(self.low - self.low % BLOCK, self.high, BLOCK):
            drawn = _block(seed, start, d_model)
            first, end = max(start, self.low), min(start + BLOCK, self.high)
            own[first - self.low : end - self.low] = drawn[first - start : end - start].to(device)
        mesh = init_device_mesh(device.type, (world,))
        self.weight = nn.Parameter(
            DTensor.from_local(
                own, mesh, [Shard(0)], run_check=False, shape=torch.Size((n, d_model)), stride=(d_model, 1)
            )
        )

    @property
    def own(self) -> Tensor:
        """[high − low, d] the rows of this process; gradients reach the table through it."""
        rows: Tensor = self.weight.to_local()  # type: ignore[attr-defined]
        return rows

    def looked_up(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns what `ItemRows.looked_up` returns, in every process; all of them ask for the same rows.

        Raises:
            RuntimeError: The whole table is asked for, which no process has.
        """
        if rows is None:
            raise RuntimeError("the item table is in parts, and no process has all of it")
        beside = torch.arange(self.n_items, self.n_items + 2, device=rows.device)
        found = self.together(torch.cat([rows, beside]), rows[:0])[0]
        return found[:-2], found[-2:]

    def together(self, rows: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Looks up rows that all processes ask for and rows of this process alone, both at once.

        At once, so that the gradient of the table is made once: it is as large as the part.

        Args:
            rows: [R] rows of the table, the same in every process.
            own: [n] rows of this process.

        Returns:
            [R, d] in every process, and [n, d].
        """
        mine = (rows >= self.low) & (rows < self.high)
        if self.high == self.low:  # more processes than rows
            none = self.own.sum() + torch.zeros(len(rows), self.weight.shape[1], device=rows.device)
            return summed_over_processes(none), none[:0]
        found = F.embedding(torch.cat([torch.where(mine, rows - self.low, 0), own - self.low]), self.own)
        wanted = found[: len(rows)] * mine[:, None].to(found.dtype)
        return summed_over_processes(wanted), found[len(rows) :]

    @torch.no_grad()
    def start_from(self, vectors: Tensor | None) -> None:
        """Starts the rows of items from vectors [N, ≤ d] that the first process has, as `init_item_embeddings` does.

        They come block by block, so that no other process ever holds all of them.
        """
        own = self.own
        length = torch.stack([own[: self._items].norm(dim=1).sum(), torch.tensor(float(self._items)).to(own)])
        dist.all_reduce(length)
        mean = length[0] / length[1]
        width = torch.tensor(0 if vectors is None else vectors.shape[1], device=own.device)
        dist.broadcast(width, src=0)
        for start in range(0, self.n_items, BLOCK):
            end = min(start + BLOCK, self.n_items)
            block = torch.zeros(end - start, int(width), device=own.device)
            if vectors is not None:
                block.copy_(vectors[start:end])
            dist.broadcast(block, src=0)
            first, last = max(start, self.low), min(end, self.high)
            if first < last:
                given = block[first - start : last - start]
                known = given.abs().sum(dim=1) > 0
                rows = own[first - self.low : last - self.low]
                rows[known, : int(width)] = given[known] * mean

    @property
    def _items(self) -> int:
        return min(self.high, self.n_items) - min(self.low, self.n_items)


def _block(seed: int, start: int, d_model: int) -> Tensor:
    """Returns the first values [BLOCK, d] of the rows from `start` on."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + start // BLOCK) % 2**63)
    return torch.randn(BLOCK, d_model, generator=generator) * STD


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(_context: object, tensor: Tensor) -> Tensor:
        out = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        out = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(out)
        return out


def summed_over_processes(tensor: Tensor) -> Tensor:
    """Returns the sum of a tensor over all processes, in each of them.

    The loss is the sum of the processes' losses, so its gradient is the sum of theirs.
    """
    out: Tensor = _Summed.apply(tensor)  # type: ignore[no-untyped-call]
    return out
