"""`gpt4rec serve` as a process, and its processor time, memory and mapped files as the kernel counts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

START_S = 60.0
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
REPOSITORY = Path(__file__).resolve().parents[2]
_OWN_THREADS = {"OMP_NUM_THREADS": "1"}
# What is measured is the making of lists, unless a measurement says otherwise.
NOTHING_KEPT = {"GPT4REC_ANSWERS_MIB": "0"}


class NotReadyError(Exception):
    """Raised if the process ended or did not answer in time; the message holds the end of its log."""


class Process:
    """A process and its figures; Linux only (/proc)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu_s(self) -> float:
        """Returns the processor seconds of all its living threads, in nanoseconds where the kernel counts them.

        Otherwise to a tick, with ended threads included.
        """
        seconds = 0.0
        try:
            for thread in Path(f"/proc/{self.pid}/task").iterdir():
                seconds += int((thread / "schedstat").read_text(encoding="utf-8").split()[0]) * 1e-9
        except FileNotFoundError:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) * _TICK_S
        return seconds

    def rss_mib(self) -> float:
        """Returns resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE / 2**20

    def private_mib(self) -> float:
        """Returns resident memory that is neither shared nor an unchanged page of a file."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        private = (line.split() for line in lines if line.startswith("Private_"))
        return sum(int(words[1]) for words in private) / 1024

    def maps(self, word: str) -> list[str]:
        """Returns mapped files whose path contains the word."""
        lines = Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8").splitlines()
        return sorted({path for line in lines if word in (path := line.split(maxsplit=5)[-1])})

    def child(self, name: str) -> Process | None:
        """Returns its child process whose name begins with `name`."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):
                    text = (folder / "stat").read_text(encoding="utf-8")
                    called, _, rest = text.partition("(")[2].rpartition(")")
                    if int(rest.split()[1]) == self.pid and called.startswith(name):
                        return Process(int(folder.name))
        return None


class Served(Process):
    """A running service; `valkey` is its embedded server, `ready_s` the time from exec to the first 200 of /readyz."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, ready_s: float, data: Path) -> None:
        super().__init__(process.pid)
        self.url, self.ready_s, self._process = url, ready_s, process
        self.valkey = self.child("valkey")
        self.redis_url = f"unix://{data / 'valkey.sock'}"

    def alive(self) -> bool:
        """Returns whether the process still runs."""
        return self._process.poll() is None


def free_port(room: int = 1) -> int:
    """Returns a free port of the loopback interface, the first of `room` free ones."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for more in range(port + 1, port + room):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", more))
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def serve(artifact: Path, *arguments: str, **environment: str) -> Iterator[Served]:
    """Runs the service on an empty embedded store until the body ends. It keeps no lists, unless told to.

    A variable whose value is empty is left out.

    Raises:
        NotReadyError: If it does not become ready.
    """
    with tempfile.TemporaryDirectory(prefix="gpt4rec-load-") as folder:
        data = Path(folder) / "data"
        redis = () if "--redis" in arguments else ("--redis", "embedded", "--data-dir", str(data))
        command = [sys.executable, "-m", "service.cli", "serve", "--artifact", str(artifact.resolve()),
                   "--log-level", "warning", *redis, *arguments]  # fmt: skip
        chosen = {name: value for name, value in {**NOTHING_KEPT, **environment}.items() if value}
        with started(command, "/readyz", Path(folder) / "log", **chosen) as (process, url, ready_s):
            yield Served(process, url, ready_s, data)


@contextmanager
def started(
    command: Sequence[str], path: str, log: Path, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """Runs a command that listens on its `--port` (a free one by default) until the body ends.

    Yields, when `path` answers 200, the process, its URL, and the seconds from exec to that answer.

    Raises:
        NotReadyError: If it does not answer in time.
    """
    if "--port" not in command:
        command = [*command, "--port", str(free_port())]
    port = int(command[command.index("--port") + 1])
    with listening(command, port, path, log, environment) as found:
        yield found


@contextmanager
def listening(
    command: Sequence[str], port: int, path: str, log: Path, environment: Mapping[str, str], *, status: bytes = b"200"
) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """Does the same for a command that gets its port in another way, and whose first answer has this status."""
    with log.open("ab") as out:
        began = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **_OWN_THREADS, **environment},
        )  # fmt: skip
    try:
        while not _answers(port, path, status):
            if process.poll() is not None or time.perf_counter() - began > START_S:
                raise NotReadyError(log.read_text(encoding="utf-8", errors="replace")[-500:])
            time.sleep(0.01)
        yield process, f"http://127.0.0.1:{port}", time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int, path: str, status: bytes) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return connection.recv(64).split(b" ", 2)[1:2] == [status]
    return False
