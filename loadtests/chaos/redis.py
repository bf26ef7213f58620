"""Faults of Redis and of the network in front of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial

from loadtests.chaos.scene import Fault, Scene
from loadtests.harness.served_process import Served
from loadtests.harness.tcp_proxy import Proxy, proxy
from loadtests.harness.valkey import TcpValkey

# Nobody's history can be read, or not in time; that most answers then come from below the model is what opens no
# breaker: it counts attempts of the model only. A queue may form while states are read again.
AWAY = frozenset({"state_unavailable", "deadline", "state_stale", "overload"})
CATCHING_UP = frozenset({"deadline", "state_stale", "overload"})

_PROMISE_AWAY = "every list comes, without the stored history; events are refused and none is lost; well by itself"
_HOLD_S = 6.0


def killed(scene: Scene) -> None:
    """Kills Redis and starts it again."""
    redis = scene.enter(TcpValkey(scene.folder / "redis"))
    with _outage(scene, scene.serve("--redis", redis.url)):
        redis.kill9()
        scene.hold(_HOLD_S)
        redis.start()


def embedded_killed(scene: Scene) -> None:
    """Kills the embedded server."""
    service = scene.serve()
    assert service.valkey is not None  # noqa: S101 - it embeds one
    with _outage(scene, service):
        os.kill(service.valkey.pid, signal.SIGKILL)


def frozen(scene: Scene) -> None:
    """Stops the process of Redis for a while."""
    redis = scene.enter(TcpValkey(scene.folder / "redis"))
    with _outage(scene, scene.serve("--redis", redis.url)):
        redis.freeze()
        scene.hold(_HOLD_S)
        redis.thaw()


def slow(scene: Scene, delay_s: float, reasons: Collection[str], refused: bool) -> None:
    """Delays every reply of Redis."""
    between, service = _behind(scene)
    with scene.load(service.url), scene.fault(reasons=reasons, refused=refused):
        between.delay_s = delay_s
        scene.hold(_HOLD_S)
        between.delay_s = 0.0


def reset(scene: Scene) -> None:
    """Resets all connections to Redis repeatedly."""
    between, service = _behind(scene)
    with _outage(scene, service):
        _again_and_again(scene, between.reset)


def silent(scene: Scene) -> None:
    """Lets nothing pass to or from Redis."""
    between, service = _behind(scene)
    with _outage(scene, service):
        between.silent = True
        scene.hold(_HOLD_S)
        between.silent = False


def abandoned(scene: Scene) -> None:
    """Abandons all open connections; new ones reach the server."""
    between, service = _behind(scene)
    with _outage(scene, service):
        between.abandon()
        scene.hold(_HOLD_S)


def cut(scene: Scene) -> None:
    """Cuts every reply of Redis in half, and its connection with it."""
    between, service = _behind(scene)
    with _outage(scene, service):
        between.cutting = True
        scene.hold(_HOLD_S)
        between.cutting = False


def out_of_memory(scene: Scene) -> None:
    """Leaves Redis no memory for writes."""
    redis = scene.enter(TcpValkey(scene.folder / "redis"))
    service = scene.serve("--redis", redis.url)
    with scene.load(service.url), scene.fault(reasons=CATCHING_UP, refused=True):
        redis.fill_memory()
        scene.hold(_HOLD_S)
        redis.free_memory()


def out_of_disk(scene: Scene) -> None:
    """Fills the disk below the append-only file."""
    redis = scene.enter(TcpValkey(scene.folder / "redis", fsync="everysec", disk_mib=4))
    scene.notes.append("the disk is a tmpfs of 4 MiB, filled by another file")
    service = scene.serve("--redis", redis.url)
    with scene.load(service.url), scene.fault(reasons=CATCHING_UP, refused=True):
        redis.fill_disk()
        scene.hold(_HOLD_S)
        redis.free_disk()
    scene.promise(_refused(scene) > 0, "the server never noticed its full disk")


def restored(scene: Scene) -> None:
    """Replaces Redis by an older copy of itself."""
    redis = scene.enter(TcpValkey(scene.folder / "redis"))
    service = scene.serve("--redis", redis.url)
    with scene.load(service.url) as load:
        copied = time.perf_counter()
        redis.copy(scene.folder / "copy")
        scene.hold(_HOLD_S)
        with scene.fault(reasons=AWAY, refused=True):
            redis.kill9()
            scene.hold(2.0)
            undone = load.undo(copied)
            redis.restore(scene.folder / "copy")
            redis.start()
        scene.notes.append(f"{undone} events acknowledged after the copy went with the data it replaced")


# -- what several of them share


def _behind(scene: Scene) -> tuple[Proxy, Served]:
    """Starts a service, and the proxy between it and its server."""
    redis = scene.enter(TcpValkey(scene.folder / "redis"))
    between = scene.enter(proxy(redis.port))
    return between, scene.serve("--redis", redis.url_at(between.port))


@contextmanager
def _outage(scene: Scene, service: Served) -> Iterator[None]:
    with scene.load(service.url), scene.fault(reasons=AWAY, refused=True):
        yield


def _again_and_again(scene: Scene, act: Callable[[], None]) -> None:
    for _ in range(30):
        act()
        scene.hold(_HOLD_S / 30)


def _refused(scene: Scene) -> int:
    assert scene.running is not None  # noqa: S101 - there was load
    return sum(one.status == 503 for one in scene.running.seen)


def _fault(name: str, text: str, promise: str, run: Callable[[Scene], None]) -> Fault:
    return Fault(f"redis {name}", "redis", text, promise, run)


FAULTS = (
    _fault("kill -9", "Redis is killed, and started again", _PROMISE_AWAY, killed),
    _fault("embedded kill -9", "The server that the service embeds is killed",
           "the service starts it again; meanwhile lists without the stored history, and events refused",
           embedded_killed),
    _fault("SIGSTOP", "Redis is frozen: connections stay open, nothing is answered", _PROMISE_AWAY, frozen),
    _fault("+5 ms", "Every answer of Redis takes 5 ms longer", "as if nothing were",
           partial(slow, delay_s=0.005, reasons=CATCHING_UP, refused=False)),
    _fault("+50 ms", "Every answer of Redis takes 50 ms longer: more than a read may take, less than a write",
           "lists without the stored history, events accepted",
           partial(slow, delay_s=0.05, reasons=AWAY, refused=False)),
    _fault("+500 ms", "Every answer of Redis takes 500 ms longer: more than a write may take",
           "lists without the stored history; events refused though written, and none twice when sent again",
           partial(slow, delay_s=0.5, reasons=AWAY, refused=True)),
    _fault("resets", "All connections to Redis are reset, five times a second", _PROMISE_AWAY, reset),
    _fault("silent", "Nothing passes to Redis or from it; connections open and stay so", _PROMISE_AWAY, silent),
    _fault("half-open", "The peers of all open connections are gone without a word; new ones find the server",
           "the dead connections are given up, and the service is well before the fault is over", abandoned),
    _fault("answers cut", "Every answer of Redis ends in the middle, and the connection with it",
           "half an answer is none: lists without the stored history, events refused, none twice", cut),
    _fault("maxmemory", "Redis has no memory left and evicts nothing",
           "lists as ever, from what is stored and kept; events refused, none half written", out_of_memory),
    _fault("disk full", "The disk under the append-only file is full (synced every second)",
           "lists as ever; events refused once the server knows, none lost that was acknowledged", out_of_disk),
    _fault("restored", "Redis is replaced by an older copy of itself",
           "what was acknowledged before the copy is there; no state of the future is used", restored),
)  # fmt: skip
