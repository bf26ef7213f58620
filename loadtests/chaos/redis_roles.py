"""Faults in which Redis stays up and another server, or nobody, may be written to: roles, fail-overs, rights."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from loadtests.chaos.load import EVENTS
from loadtests.chaos.redis import AWAY, CATCHING_UP
from loadtests.chaos.scene import Fault, Scene, SceneError
from loadtests.harness.sentinel import COPIES_AT_ONCE, SentinelGroup
from loadtests.harness.tcp_proxy import proxy
from loadtests.harness.valkey import TcpValkey

_HOLD_S = 6.0
# A demoted master is told so after 8 s by its Sentinel; a dead one is noticed after 30 s, and replaced after that.
_SWITCHED_S = 90.0
_ROW = 20


def role_change(scene: Scene) -> None:
    """Hands the role of the master over to a replica; the address leads there, and open connections stay."""
    old = scene.enter(TcpValkey(scene.folder / "old", **COPIES_AT_ONCE))
    new = scene.enter(TcpValkey(scene.folder / "new", replicaof=f"127.0.0.1 {old.port}", **COPIES_AT_ONCE))
    between = scene.enter(proxy(old.port))
    _until(lambda: old.say("WAIT 1 100") == b":1", "a replica")
    service = scene.serve("--redis", old.url_at(between.port))
    with scene.load(service.url), scene.fault(reasons=AWAY, refused=True):
        scene.promise(old.say(f"FAILOVER TO 127.0.0.1 {new.port}") == b"+OK", "the server hands nothing over")
        between.lead_to(new.port)
        scene.hold(_HOLD_S)
        _until_accepted(scene)


def fail_over(scene: Scene, *, planned: bool, durability: str) -> None:
    """Lets a Sentinel replace the master, on command or because it was killed."""
    group = scene.enter(SentinelGroup(scene.folder, replicas=2, down_after_ms=1000))
    service = scene.serve("--redis", group.url, GPT4REC_REDIS_DURABILITY=durability)
    with scene.load(service.url), scene.fault(reasons=AWAY, refused=True, lossy=not planned and durability == "memory"):
        began, old = time.perf_counter(), group.master()
        if planned:
            group.fail_over()
        else:
            old.kill9()
        _until(lambda: group.master() is not old, "the Sentinel names another master")
        scene.notes.append(f"the Sentinel names the new master after {time.perf_counter() - began:.1f} s")
        _until_accepted(scene)
        scene.notes.append(f"events are accepted again after {time.perf_counter() - began:.1f} s")
        if planned:  # the old master is demoted later, and its writes are undone
            _until(lambda: old.say("ROLE") == b"*5", "the old master is a replica")


def rights(scene: Scene) -> None:
    """Withdraws a right that appends need, and gives it back."""
    redis = scene.enter(TcpValkey(scene.folder / "redis"))
    service = scene.serve("--redis", redis.url)
    with scene.load(service.url), scene.fault(reasons=CATCHING_UP, refused=True):
        redis.say("ACL SETUSER default -set")
        scene.hold(_HOLD_S)
        redis.say("ACL SETUSER default +@all")
        _until_accepted(scene)


def _until_accepted(scene: Scene) -> None:
    """Waits for a row of events that were all acknowledged."""
    since = time.perf_counter()

    def accepted() -> bool:
        assert scene.running is not None  # noqa: S101 - there is load
        row = [one.status for one in scene.running.seen[:] if one.path == EVENTS and one.due >= since][-_ROW:]
        return row == [200] * _ROW

    _until(accepted, "events are accepted")


def _until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _SWITCHED_S
    while not condition():
        if time.monotonic() > until:
            raise SceneError(f"this did not happen: {what}")
        time.sleep(0.05)


_NO_LOSS = "events are refused until the new master is known, and none that was acknowledged is lost; well by itself"
_LOSS = "events are refused until the new master is known; what the dead master acknowledged and had not copied is lost"
_DONE = {True: "A Sentinel is told to replace the master", False: "The master is killed, and a Sentinel replaces it"}


def _fail_over(planned: bool, durability: str) -> Fault:
    return Fault(
        f"redis {'planned' if planned else 'unplanned'} fail-over, {durability}",
        "redis",
        f"{_DONE[planned]} (durability `{durability}`, two replicas)",
        _NO_LOSS if planned or durability == "replica" else _LOSS,
        partial(fail_over, planned=planned, durability=durability),
    )


FAULTS = (
    Fault("redis role change", "redis", "The master hands its role to a replica; the address leads there, and all "
          "connections to the old master stay open", _NO_LOSS, role_change),
    *(_fail_over(planned, durability) for planned in (True, False) for durability in ("memory", "replica")),
    Fault("redis ACL", "redis", "The service's user loses a right that appends need (`SET`)",
          "lists as ever; events refused, none half written; the right is named in the log", rights),
)  # fmt: skip
