"""Servers of the comparison as processes: started, watched, and ended with all their children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.peers.environments import PeerError

START_S = 45.0
STOP_S = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.05


def free_port() -> int:
    """Returns a free port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Running:
    """A started server; `pid` leads its own session."""

    pid: int
    url: str

    def cpu_seconds(self) -> float:
        """Returns the processor time so far of the server and all its descendants, ended ones included."""
        return sum(_cpu(pid) for pid in family(self.pid))


@contextmanager
def running(
    command: Sequence[str], port: int, environment: Mapping[str, str], log: Path, ready: Callable[[str], bool]
) -> Iterator[Running]:
    """Runs a server until the body ends, however it ends.

    Raises:
        PeerError: If it does not come up; the message holds the end of its log.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        give_up = time.monotonic() + START_S
        while not ready(url):
            if process.poll() is not None or time.monotonic() > give_up:
                why = "ended" if process.poll() is not None else f"did not answer within {START_S:.0f} s"
                raise PeerError(f"{' '.join(command)}\n{why}:\n{log.read_text('utf-8', errors='replace')[-3000:]}")
            time.sleep(_POLL_S)
        yield Running(process.pid, url)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminates the leader, kills the rest of its family, and waits until all are gone."""
    members = {pid: started for pid in family(process.pid) if (started := _started(pid)) is not None}
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    members |= {pid: started for pid in family(process.pid) if (started := _started(pid)) is not None}
    # A number that was given to another process in the meantime is not ours to end.
    left = {pid for pid, started in members.items() if _started(pid) == started}
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    give_up = time.monotonic() + STOP_S
    while any(_started(pid) == members[pid] for pid in left) and time.monotonic() < give_up:
        time.sleep(_POLL_S)


def family(root: int) -> set[int]:
    """Returns the living processes of the session that `root` leads, and all their descendants."""
    parents: dict[int, int] = {}
    members = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        fields = _stat(int(entry.name))
        if fields is None:
            continue
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        if pid == root or int(fields[3]) == root:
            members.add(pid)
    grown = True
    while grown:
        found = {pid for pid, parent in parents.items() if parent in members} - members
        members |= found
        grown = bool(found)
    return members


def _started(pid: int) -> str | None:
    """Returns when a process was started, in ticks; None if it has ended."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else fields[19]


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return 0.0 if fields is None else sum(int(value) for value in fields[11:15]) / _TICKS


def _stat(pid: int) -> list[str] | None:
    """Returns /proc/PID/stat from the state on (field 3 of proc(5)); None if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
