"""Starts training processes with torchrun, and ends what is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from service.common.errors import ServiceError

DEADLINE_S = 1800.0
_POLL_S = 0.05


class LaunchError(ServiceError):
    """Training processes did not do what was asked of them."""


class Launched:
    """Training processes under one torchrun, in a process group of their own.

    Attributes:
        process: torchrun itself.
        log: What all of them write.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Waits for the end and returns the exit status.

        Raises:
            LaunchError: They have not ended in time.
        """
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired as error:
            raise LaunchError(
                f"the training has not ended after {deadline_s:g} s; {self.log} says how far it is"
            ) from error

    def ranks(self) -> dict[int, int]:
        """Returns the process ids of the training processes that run, by rank."""
        found = {}
        for pid in _children(self.process.pid):
            with contextlib.suppress(OSError, ValueError):
                environment = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
                known = dict(entry.split(b"=", 1) for entry in environment if b"=" in entry)
                if b"RANK" in known:
                    found[int(known[b"RANK"])] = pid
        return found

    def tail(self, lines: int = 30) -> str:
        """Returns the last lines of the log."""
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def torchrun(
    processes: int, arguments: Sequence[str], log: Path, *, options: Sequence[str] = (), **environment: str
) -> Iterator[Launched]:
    """Starts `python ARGUMENTS` as several processes, and kills what is left of them at the end.

    Args:
        processes: How many.
        arguments: Arguments of python, from `-m` on.
        log: File for their output.
        options: Further options of torchrun.
        **environment: Variables that differ from this process's.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *options,
        *arguments,
    ]  # fmt: skip
    started: Mapping[str, str] = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **environment}
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=started, start_new_session=True)  # noqa: S603 - this interpreter
    try:
        yield Launched(process, log)
    finally:
        left = _children(process.pid) if process.poll() is None else []
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pid in left:  # torchrun gives its children sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(30.0)


def until(what: str, done: Callable[[], bool], launched: Launched, deadline_s: float = DEADLINE_S) -> None:
    """Waits until `done()` is true.

    Raises:
        LaunchError: It is not in time, or the processes have ended before.
    """
    ends = time.monotonic() + deadline_s
    while not done():
        if launched.process.poll() is not None:
            raise LaunchError(f"the training ended before {what}:\n{launched.tail()}")
        if time.monotonic() > ends:
            raise LaunchError(f"waited {deadline_s:g} s for {what}")
        time.sleep(_POLL_S)


def _children(pid: int) -> list[int]:
    try:
        tasks = list((Path("/proc") / str(pid) / "task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def peak_bytes() -> int:
    """Returns the largest resident memory that this process has had."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LaunchError("/proc/self/status has no VmHWM: peak memory is measured on Linux alone")
