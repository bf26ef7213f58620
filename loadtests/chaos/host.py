"""Faults of what surrounds the process: the reader of its log, the disks of its files; and a worker that hangs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import httpx

from loadtests.chaos.scene import SETTINGS, TOKEN, Fault, Scene, SceneError
from loadtests.harness import served_process
from loadtests.harness.hung_file import hang
from loadtests.harness.scraped import scraped
from service.settings.service_settings import DEFAULT_POLICIES

_HOLD_S, _LAST_S, _EXIT_S, _FOUND_S = 8.0, 5.0, 20.0, 60.0
_WORKER_TIMEOUT_S = 10
_PAUSE_S = 0.05
# A worker that has just been started has read nobody's history yet.
_COLD = frozenset({"state_stale", "state_unavailable", "deadline", "overload"})
_CUT_OFF = tuple(
    f"{path} {how}" for path in ("/recommend", "/events") for how in ("timeout", "cut off", "ConnectionResetError")
)


# -- the log


class Pipe:
    """A named pipe that the service logs to, and its reader, who may stall or leave."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._reading = threading.Event()
        self._reading.set()
        self._left = False
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Pipe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def stall(self) -> None:
        """Reads no more."""
        self._reading.clear()

    def read_on(self) -> None:
        """Reads again."""
        self._reading.set()

    def leave(self) -> None:
        """Closes the pipe."""
        self._left = True
        self._reading.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._left:
            self._reading.wait()
            with suppress(BlockingIOError):
                os.read(self._fd, 1 << 16)
            time.sleep(_PAUSE_S)
        os.close(self._fd)


def _serve(scene: Scene, log: Path) -> tuple[Popen[bytes], str]:
    """Starts a service that logs every request to a file of our choice."""
    command = [
        sys.executable, "-m", "service.cli", "serve", "--artifact", str(scene.artifact.resolve()),
        "--redis", "embedded", "--data-dir", str(scene.folder / "data"),
    ]  # fmt: skip
    process, url, _ = scene.enter(served_process.started(command, "/readyz", log, **SETTINGS))
    return process, url


def _stops(scene: Scene, process: Popen[bytes]) -> None:
    """Promises that the process ends in time."""
    process.terminate()
    try:
        status: int | None = process.wait(_EXIT_S)
    except TimeoutExpired:
        status = None
    scene.promise(status == 0, f"at SIGTERM it ended with {status}")


def stalled(scene: Scene) -> None:
    """The reader stalls under load, reads on, and stalls again when the service is stopped."""
    pipe = scene.enter(Pipe(scene.folder / "log"))
    process, url = _serve(scene, pipe.path)
    with scene.load(url):
        with scene.fault(reasons=()):
            pipe.stall()
            scene.hold(_HOLD_S)
        pipe.read_on()
    pipe.stall()
    _stops(scene, process)


def gone(scene: Scene) -> None:
    """The reader leaves under load."""
    pipe = scene.enter(Pipe(scene.folder / "log"))
    process, url = _serve(scene, pipe.path)
    with scene.load(url), scene.fault(reasons=()):
        pipe.leave()
        scene.hold(_HOLD_S)
    _note_dropped(scene, url)
    _stops(scene, process)


def full(scene: Scene) -> None:
    """The disk of the log is full from the start on."""
    process, url = _serve(scene, Path("/dev/full"))
    with scene.load(url), scene.fault(reasons=()):
        scene.hold(_HOLD_S)
    _note_dropped(scene, url)
    _stops(scene, process)


def _note_dropped(scene: Scene, url: str) -> None:
    dropped = _metric(url, "gpt4rec_log_lines_dropped_total")
    scene.promise(dropped > 0, "the lines that were dropped are not counted")
    scene.notes.append(f"{dropped:.0f} lines dropped")


# -- a worker


def hung_worker(scene: Scene) -> None:
    """Stops one of two workers with SIGSTOP."""
    settings = {"GPT4REC_WORKER_TIMEOUT_S": str(_WORKER_TIMEOUT_S)}
    service = scene.serve("--workers", "2", **settings)
    first, *_ = _workers(service.pid)
    with scene.load(service.url), scene.fault(reasons=_COLD, errors=_CUT_OFF):
        began = time.perf_counter()
        os.kill(first, signal.SIGSTOP)
        answered = 0
        while first in _workers(service.pid):
            _until(began, "the worker was not replaced")
            # Each on a new connection: none may wait for the worker that hangs.
            answer = httpx.get(f"{service.url}/healthz", timeout=_LAST_S)
            scene.promise(answer.is_success, f"a new connection got {answer.status_code}")
            answered += 1
            time.sleep(_PAUSE_S)
        killed_s = time.perf_counter() - began
        while _replaced(service.url) < 1:
            _until(began, "the new worker did not get ready")
            time.sleep(_PAUSE_S)
        ready_s = time.perf_counter() - began
    scene.notes.append(
        f"with GPT4REC_WORKER_TIMEOUT_S={_WORKER_TIMEOUT_S} it was killed after {killed_s:.1f} s, another one was "
        f"ready after {ready_s:.1f} s; {answered} new connections meanwhile were answered"
    )


def _workers(supervisor: int) -> list[int]:
    """Returns the process ids of the workers."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="utf-8").split()
    return [int(pid) for pid in children if _is_worker(pid)]


def _is_worker(pid: str) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _replaced(url: str) -> float:
    """Returns how many workers were replaced; 0 while one of them does not answer."""
    try:
        return _metric(url, "gpt4rec_worker_replaced_total")
    except httpx.HTTPError:
        return 0.0


# -- a file


def hung_files(scene: Scene) -> None:
    """Two of three files that are followed hang; the third withdraws a token."""
    policies, metrics_tokens, ops_tokens = (scene.folder / name for name in ("policies.yaml", "metrics", "ops"))
    policies.write_bytes(DEFAULT_POLICIES.read_bytes())
    metrics_tokens.write_text("scraper:chaos-scraper\n", encoding="utf-8")
    ops_tokens.write_text("chaos:chaos-token\nother:chaos-other\n", encoding="utf-8")
    service = scene.enter(
        served_process.serve(
            scene.artifact, "--policies", str(policies),
            GPT4REC_HISTORY_CAP=SETTINGS["GPT4REC_HISTORY_CAP"], GPT4REC_OPS_TOKENS_FILE=str(ops_tokens),
            GPT4REC_METRICS_TOKENS_FILE=str(metrics_tokens),
        )
    )  # fmt: skip
    with scene.load(service.url):
        with scene.fault(reasons=()):
            began = time.perf_counter()
            held = [_hang(path) for path in (policies, metrics_tokens)]
            ops_tokens.write_text("chaos:chaos-token\n", encoding="utf-8")
            while _operator(service.url, "chaos-other"):
                _until(began, "the withdrawn token kept working")
                time.sleep(_PAUSE_S)
            withdrawn_s = time.perf_counter() - began
            while _ready(service.url) != (200, "degraded"):
                _until(began, "/readyz does not say that files hang")
                time.sleep(_PAUSE_S)
            named_s = time.perf_counter() - began
            scene.hold(_LAST_S)
        for fd in held:
            os.close(fd)
        while _ready(service.url) != (200, "ready"):
            _until(began, "/readyz does not say that the files answer")
            time.sleep(_PAUSE_S)
    scene.notes.append(
        f"the token of the other file was withdrawn after {withdrawn_s:.1f} s, /readyz said degraded after "
        f"{named_s:.1f} s"
    )
    held = [_hang(path) for path in (policies, metrics_tokens)]
    scene.hold(_LAST_S)
    ends = time.perf_counter()
    os.kill(service.pid, signal.SIGTERM)
    while service.alive() and time.perf_counter() - ends < _EXIT_S:
        time.sleep(_PAUSE_S)
    scene.promise(not service.alive(), "with files that hang, SIGTERM did not end it")
    for fd in held:
        os.close(fd)


def _hang(path: Path) -> int:
    """Lets a file hang; those who read it go on, and find it empty, once the result is closed."""
    hang(path)
    return os.open(path, os.O_RDWR)


def _operator(url: str, token: str) -> bool:
    return httpx.get(f"{url}/ops/fallback", headers={"Authorization": f"Bearer {token}"}, timeout=_LAST_S).is_success


def _ready(url: str) -> tuple[int, str]:
    answer = httpx.get(f"{url}/readyz", timeout=_LAST_S)
    return answer.status_code, answer.json()["status"]


# -- all


def _metric(url: str, name: str) -> float:
    return sum(value for series, value in scraped(url, TOKEN).items() if series.startswith(name))


def _until(began: float, otherwise: str) -> None:
    if time.perf_counter() - began > _FOUND_S:
        raise SceneError(otherwise)


def _fault(name: str, text: str, promise: str, run: Callable[[Scene], None]) -> Fault:
    return Fault(name, "process", text, promise, run)


_LOG = "lists and events as ever; lines that cannot be written are dropped and counted; at SIGTERM it ends as ever"

FAULTS = (
    _fault("log reader stalls", "Who reads the log of every request stalls, reads on, and stalls again at the stop",
           _LOG, stalled),
    _fault("log reader gone", "Who reads the log of every request goes away", _LOG, gone),
    _fault("log disk full", "The disk of the log has no room from the start on", _LOG, full),
    _fault("worker hangs", "One of two workers is stopped with SIGSTOP",
           "new connections are answered; what the worker had accepted is cut off; it is replaced", hung_worker),
    _fault("files hang", "Policies and metrics tokens are on a disk that hangs; a token is withdrawn in another file",
           "lists and events as ever; the other file is followed; /readyz says degraded; SIGTERM ends it", hung_files),
)  # fmt: skip
