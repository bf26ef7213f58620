"""The processes of a training: who this one is, which device it has, and what all of them agree on.

torchrun says the rank in the environment. The collectives run over gloo on CPUs and over nccl on cards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from model.errors import RunError
from model.training.devices import device_of, started_by_torchrun

T = TypeVar("T")

# Longest time that a process waits for the others in a step, and while the first one prepares the run.
STEP_WAIT, PREPARATION_WAIT = timedelta(minutes=10), timedelta(days=1)
# Floats that travel in one message when gradients are added up: 16 MiB.
BUCKET = 1 << 22


def started_again() -> bool:
    """Returns whether torchrun has started the processes again, after one of them died (`--max-restarts`)."""
    return started_by_torchrun() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


class Processes:
    """This process among those of the training.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        device: The device that it trains on.
    """

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        self.rank, self.world, self.device = rank, world, device
        self._patient = dist.new_group(backend="gloo", timeout=PREPARATION_WAIT)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, reports and evaluates."""
        return self.rank == 0

    def rows(self, n: int) -> tuple[int, int]:
        """Returns the first of n rows that this process has, and the one after its last."""
        return self.rank * n // self.world, (self.rank + 1) * n // self.world

    def sum(self, tensor: Tensor) -> Tensor:
        """Adds a tensor up over all processes, in place; every one of them calls this at the same point."""
        with lost_process():
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Adds gradients up over all processes, in place, many of them in a message."""
        bucket: list[Tensor] = []
        for gradient in gradients:
            bucket.append(gradient)
            if sum(one.numel() for one in bucket) >= BUCKET:
                self._sum_bucket(bucket)
                bucket = []
        if bucket:
            self._sum_bucket(bucket)

    def _sum_bucket(self, bucket: Sequence[Tensor]) -> None:
        flat = self.sum(torch.cat([one.reshape(-1) for one in bucket]))
        at = 0
        for one in bucket:
            one.copy_(flat[at : at + one.numel()].view_as(one))
            at += one.numel()

    def of_first(self, value: T) -> T:
        """Returns the first process's value in every process; the others wait for it as long as it takes."""
        told: list[Any] = [value]
        with lost_process():
            dist.broadcast_object_list(told, src=0, group=self._patient)
        out: T = told[0]
        return out

    def first_does(self, work: Callable[[], T]) -> T | None:
        """Has the first process do something while the others wait; returns what it made there, else None.

        A failure of the first process ends the others, which say nothing of their own.
        """
        if not self.is_first:
            if not self.of_first(False):
                raise SystemExit(1)
            return None
        try:
            done = work()
        except BaseException:
            self.of_first(False)
            raise
        self.of_first(True)
        return done

    def gathered(self, value: T) -> list[T]:
        """Returns the values of all processes, by rank, in every process."""
        found: list[Any] = [None] * self.world
        with lost_process():
            dist.all_gather_object(found, value, group=self._patient)
        return found

    def copy_of_first(self, tensors: Sequence[Tensor]) -> None:
        """Overwrites tensors on the CPU with those of the first process."""
        with lost_process():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0, group=self._patient)


@contextmanager
def joined() -> Iterator[Processes]:
    """Joins the processes that torchrun has started, or makes a group of this process alone.

    Raises:
        RunError: There are more processes on this machine than cards.
    """
    device = device_of()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with lost_process():
        dist.init_process_group(backend, timeout=STEP_WAIT, **_meeting_point())
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def _meeting_point() -> dict[str, Any]:
    """Returns where the processes meet, as arguments of `init_process_group`.

    The store of torchrun outlives a process that dies, and so do the addresses in it, which those that are started
    again must not read (https://github.com/pytorch/pytorch/issues/135712). A prefix for each start keeps them apart.

    Raises:
        RunError: There are several nodes, which do not count their starts alike.
    """
    given = os.environ
    if not started_by_torchrun():
        return {"store": dist.HashStore(), "rank": 0, "world_size": 1}  # type: ignore[attr-defined]
    if given.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or int(given.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
        return {}
    if int(given.get("GROUP_WORLD_SIZE", "1")) > 1:
        raise RunError(
            "torchrun cannot start the processes of several nodes again while they share its store",
            where="--max-restarts",
            fix="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun on every node",
        )
    place = (given["MASTER_ADDR"], int(given["MASTER_PORT"]))
    store = dist.TCPStore(*place, is_master=False, timeout=STEP_WAIT)  # type: ignore[attr-defined]
    own = dist.PrefixStore(f"start-{given['TORCHELASTIC_RESTART_COUNT']}", store)  # type: ignore[attr-defined]
    return {"store": own, "rank": int(given["RANK"]), "world_size": int(given["WORLD_SIZE"])}


@contextmanager
def lost_process() -> Iterator[None]:
    """Turns what a collective raises when another process is gone into an error that says so.

    Raises:
        RunError: Another process has ended, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RunError) or not _is_of_a_collective(error):
            raise
        raise RunError(
            "another process of the training has ended or does not answer, so this one ends too",
            where=f"process {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}",
            fix="see what that process said last; then give the same command with --resume",
        ) from error


def _is_of_a_collective(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "NCCL", "ProcessGroup"))
