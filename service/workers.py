"""Several worker processes behind one port, and their supervisor.

    ready      every worker accepts requests                     → the port is announced
    ended      a worker ended, though nobody asked it to         → another one takes its place
    hangs      the event loop of a worker has stood still for    → it is killed, and another one takes its place
               GPT4REC_WORKER_TIMEOUT_S
    signal     SIGTERM, SIGINT or SIGHUP                          → all workers drain; who does not end is killed

The workers accept from one queue (`service.api.listeners`), so new connections pass a worker that hangs by. A worker
that ends before the port was announced ends the service: the others would fail as well.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from service.api import other_servers
from service.api.listeners import BACKLOG, ConnectionShare, bind, reserve
from service.app import create_app
from service.common import logs
from service.common.errors import ServiceError, StartupError
from service.metrics.service_metrics import Metrics
from service.process import output
from service.process.process_end import end_within
from service.server import Announce, drains_at, longest_stop_s, serve_app
from service.settings.service_settings import Settings
from service.store.redis.embedded_valkey import EmbeddedValkey

log = logs.get(__name__)

_ROUND_S = 0.5
_FIRST_ROUND_S = 0.1
_PASSED_MOST_S = 2.0 * _ROUND_S
# A process that has just been started loads its modules before its event loop runs.
_LOADING_S = 120.0
# Pause before a worker is started again; doubled each time one ends before it is ready.
_PAUSE_S, _PAUSE_MOST_S = 1.0, 30.0
# The supervisor outlasts its workers, which end by themselves after `longest_stop_s`.
_OUTLAST_S = 2.0
_KILLED_S = 5.0


@dataclass(frozen=True, slots=True)
class Board:
    """What the workers tell their supervisor, and it them, in shared memory; one place for each worker.

    Attributes:
        beats: Counts up while the event loop of the worker runs.
        ready: 1 once the worker accepts requests.
        replaced: How often a worker in this place was replaced.
        connections: Open connections of the worker.
    """

    beats: Any
    ready: Any
    replaced: Any
    connections: Any

    @classmethod
    def of(cls, context: Any, workers: int) -> Board:
        """Returns an empty board."""
        kinds = (ctypes.c_uint64, ctypes.c_uint8, ctypes.c_uint64, ctypes.c_uint32)
        return cls(*(context.RawArray(kind, workers) for kind in kinds))


@dataclass(slots=True)
class Place:
    """A worker's place, whoever is in it.

    Attributes:
        number: From 0.
        process: The process in it; None while the next one is about to be started.
        seen: The count of beats that was seen last.
        silent_s: How long it has not changed, in the supervisor's own rounds.
        pause_s: Pause before the next start, if this one is not ready by its end.
        due: When the next process is started, in monotonic seconds.
    """

    number: int
    process: SpawnProcess | None = None
    seen: int = 0
    silent_s: float = 0.0
    pause_s: float = _PAUSE_S
    due: float = field(default=0.0)

    def hears(self, beats: int, passed_s: float) -> None:
        """Takes over the present count of beats, `passed_s` seconds after the count before.

        Longer pauses count as `_PASSED_MOST_S`: a supervisor that was stopped itself, with the whole machine perhaps,
        has not listened, and must not take that for silence.
        """
        self.silent_s = self.silent_s + min(passed_s, _PASSED_MOST_S) if beats == self.seen else 0.0
        self.seen = beats


def serve_many(settings: Settings, announce: Announce) -> None:
    """Serves in one process for each worker, all on one port, each with its own engine.

    Every worker also listens on its own port above the shared one, where /metrics are its own; /metrics of the shared
    port are the sum of all workers.

    Args:
        settings: Of the service.
        announce: Called with the shared port once every worker accepts requests.

    Raises:
        SettingsError: The HTTP server of the settings cannot serve with several workers.
        StartupError: A port is taken, the embedded server does not start, or a worker ended before all were ready.
    """
    if settings.http_server != "uvicorn":
        other_servers.require(settings)
    with reserve(settings.host, settings.port, settings.workers) as shared:
        settings = settings.model_copy(update={"port": shared.getsockname()[1]})
        if settings.redis_url.get_secret_value() != "embedded":
            Supervisor(settings, shared, announce).run()
            return
        with EmbeddedValkey(settings.data_dir) as embedded:
            settings = settings.model_copy(update={"redis_url": type(settings.redis_url)(embedded.url)})
            Supervisor(settings, shared, announce, embedded.revive).run()


class Supervisor:
    """Starts the workers, replaces those that end or hang, and stops all of them at a signal.

    Args:
        settings: Of the service, with the shared port.
        shared: The socket that the workers share.
        announce: Called with its port once every worker accepts requests.
        tend: Called about twice a second.
    """

    def __init__(
        self, settings: Settings, shared: socket.socket, announce: Announce, tend: Callable[[], None] = lambda: None
    ) -> None:
        self._settings, self._shared, self._announce, self._tend = settings, shared, announce, tend
        self._context = multiprocessing.get_context("spawn")
        self._board = Board.of(self._context, settings.workers)
        self._places = [Place(number) for number in range(settings.workers)]
        self._announced = self._stopping = False

    def run(self) -> None:
        """Supervises until a signal. Raises StartupError if a worker ends before all were ready."""
        signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if drains_at(signal.SIGHUP) else [])]
        before = {sig: signal.signal(sig, self._signalled) for sig in signals}
        try:
            for place in self._places:
                self._start(place)
            failed = not self._supervise()
            self._stop()
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
        if failed:
            raise StartupError("a worker ended; see the log")

    def _supervise(self) -> bool:
        """Looks after the workers until a signal; returns False if one ended before all were ready."""
        looked = time.monotonic()
        while not self._stopping:
            alive = [place.process.sentinel for place in self._places if place.process is not None]
            multiprocessing.connection.wait(alive, timeout=_ROUND_S if self._announced else _FIRST_ROUND_S)
            now = time.monotonic()
            passed, looked = now - looked, now
            for place in self._places:
                if not self._look_at(place, passed) and not self._stopping:
                    return False
            if not self._announced and all(self._board.ready):
                self._announced = True
                self._announce(self._settings.port)
            self._tend()
        return True

    def _look_at(self, place: Place, passed_s: float) -> bool:
        """Replaces the worker if it ended or hangs; returns False if it may not be replaced."""
        if place.process is None:
            if time.monotonic() >= place.due and not self._stopping:
                self._start(place)
            return True
        if not place.process.is_alive():
            if not self._announced:
                return False
            self._replace(place, "ended")
        elif self._hangs(place, passed_s):
            log.error("worker_hangs", worker=place.number, silent_s=round(place.silent_s, 1))
            place.process.kill()
            place.process.join(_KILLED_S)
            if not self._announced:
                return False
            self._replace(place, "hangs")
        return True

    def _hangs(self, place: Place, passed_s: float) -> bool:
        place.hears(self._board.beats[place.number], passed_s)
        return place.silent_s > (self._settings.worker_timeout_s if place.seen else _LOADING_S)

    def _start(self, place: Place) -> None:
        place.seen = self._board.beats[place.number] = self._board.ready[place.number] = 0
        self._board.connections[place.number] = 0
        place.silent_s = 0.0
        place.process = self._context.Process(
            target=run_worker, args=(self._settings, self._shared, place.number, self._board),
            name=f"worker-{place.number}",
        )  # fmt: skip
        place.process.start()

    def _replace(self, place: Place, cause: str) -> None:
        """Has another worker started in this place, at once or after a pause that grows while none gets ready."""
        exit_code = place.process.exitcode if place.process is not None else None
        pause_s = place.pause_s
        place.pause_s = _PAUSE_S if self._board.ready[place.number] else min(2.0 * pause_s, _PAUSE_MOST_S)
        place.process, place.due = None, time.monotonic() + pause_s
        self._board.replaced[place.number] += 1
        # A worker that was asked to stop has shortened the queue, which the others use too.
        self._shared.listen(BACKLOG)
        log.error("worker_replaced", worker=place.number, cause=cause, exit_code=exit_code, in_s=pause_s)

    def _signalled(self, _sig: int, _frame: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            end_within(longest_stop_s(self._settings) + _OUTLAST_S + _KILLED_S)
        self._terminate()

    def _terminate(self) -> None:
        for place in self._places:
            if place.process is not None and place.process.is_alive():
                os.kill(place.process.pid or 0, signal.SIGTERM)

    def _stop(self) -> None:
        """Lets the workers drain. One that hangs is killed: it would never end."""
        self._shared.close()
        self._terminate()
        give_up = time.monotonic() + longest_stop_s(self._settings) + _OUTLAST_S
        looked = time.monotonic()
        while running := [p for p in self._places if p.process is not None and p.process.is_alive()]:
            multiprocessing.connection.wait([p.process.sentinel for p in running if p.process], timeout=_ROUND_S)
            now = time.monotonic()
            passed, looked = now - looked, now
            for place in running:
                if place.process is not None and (self._hangs(place, passed) or now >= give_up):
                    log.error("worker_killed", worker=place.number)
                    place.process.kill()
                    place.process.join(_KILLED_S)


def run_worker(settings: Settings, shared: socket.socket, number: int, board: Board) -> None:
    """Runs a worker process: `serve_one` with a share of the common queue, and a port of its own above the shared one.

    Args:
        settings: Of the service.
        shared: The socket that the workers share.
        number: The worker's place.
        board: Where it shows that it runs.
    """
    output.take_over(logs.dropped_notice)
    logs.configure(settings.log_level)
    threading.Thread(target=_end_with_supervisor, name="supervisor-watch", daemon=True).start()

    def beat() -> None:
        board.beats[number] += 1

    def ready(_port: int) -> None:
        board.ready[number] = 1

    metrics = Metrics()
    metrics.worker_replaced.inc(board.replaced[number])
    try:
        sockets = [bind(settings.host, settings.port + 1 + number)]
        share = ConnectionShare(number, board.connections, board.ready)
        serve_app(create_app(settings, metrics=metrics), settings, sockets, ready, shared=(shared, share), beat=beat)
    except ServiceError as error:
        log.critical("worker_failed", worker=number, cause=str(error))
        raise SystemExit(1) from None


def _end_with_supervisor() -> None:
    """Ends this worker when its supervisor dies; a killed supervisor could not stop it, and it would keep the port."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        log.error("supervisor_died")
        os.kill(os.getpid(), signal.SIGTERM)
