"""Faults of clocks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import httpx

from loadtests.chaos.scene import Fault, Scene
from loadtests.harness.valkey import TcpValkey

_HOLD_S = 5.0
_BEHIND_PROXY = 200
# Answers after which a clock that is wrong by more than their budget is no longer believed.
_UNTIL_KNOWN = 64
# Answers that a busy machine may cost.
_LOST_TO_LOAD = 2
# A new gap to the last event is a new context; that is all a clock says to the model.
_HICCUPS = frozenset({"deadline", "overload", "state_stale"})


def jumped(scene: Scene, jumps: tuple[float, ...], lost_to_clock: int) -> None:
    """Sends every second request through a proxy whose clock stays right."""
    service, control = scene.faulty()
    with scene.load(service.url), scene.fault(reasons=_HICCUPS):
        for seconds in jumps:
            control.set(clock_s=seconds)
            below = behind_a_proxy(service.url)
            count = sum(below.values())
            scene.promise(count <= lost_to_clock, f"clock {seconds:+g} s: {count} answers below the model: {below}")
            scene.notes.append(
                f"clock {seconds:+g} s: {count} of {_BEHIND_PROXY} lists with X-Request-Start below full"
            )
            scene.hold(_HOLD_S)
        control.set()


def apart(scene: Scene, seconds: float) -> None:
    """Sends lists in turn through a proxy whose clock is right, one that is behind, and one that is ahead."""
    service, _ = scene.faulty()
    clocks = {"127.0.0.1": 0.0, "127.0.0.2": -seconds, "127.0.0.3": seconds}
    with scene.load(service.url), scene.fault(reasons=_HICCUPS):
        for address, below in behind_proxies(service.url, clocks).items():
            allowed = _UNTIL_KNOWN if clocks[address] < 0 else _LOST_TO_LOAD
            count = sum(below.values())
            scene.promise(count <= allowed, f"clock {clocks[address]:+g} s: {count} answers below the model: {below}")
            scene.notes.append(f"proxy at {clocks[address]:+g} s: {count} of {_BEHIND_PROXY} lists below full")


def behind_a_proxy(url: str) -> Counter[str]:
    """Returns the reasons of lists below full, for requests that carry the true moment of sending."""
    return behind_proxies(url, {"127.0.0.1": 0.0})["127.0.0.1"]


def behind_proxies(url: str, clocks: Mapping[str, float]) -> dict[str, Counter[str]]:
    """Returns the reasons of lists below full, by proxy.

    Args:
        url: Where the service is.
        clocks: By the address of each proxy, how far its clock is ahead, in seconds.
    """
    reasons = {address: Counter[str]() for address in clocks}
    with ExitStack() as stack:
        proxies = {
            address: stack.enter_context(
                httpx.Client(base_url=url, timeout=10.0, transport=httpx.HTTPTransport(local_address=address))
            )
            for address in clocks
        }
        for n in range(_BEHIND_PROXY):
            for address, client in proxies.items():
                headers = {"X-Request-Start": f"{(time.time() + clocks[address]) * 1000:.0f}"}
                answer = client.post("/recommend", json={"user_id": f"chaos-{n % 40}"}, headers=headers).json()
                if answer["rung"] != "full":
                    reasons[address][str(answer["reason"])] += 1
    return reasons


def disagreeing(scene: Scene) -> None:
    """Runs two replicas whose clocks differ."""
    redis = scene.enter(TcpValkey(scene.folder / "redis"))
    one, _ = scene.faulty("--redis", redis.url)
    two, control = scene.faulty("--redis", redis.url)
    with scene.load(one.url, two.url), scene.fault(reasons=_HICCUPS):
        for minutes in (4.0, -4.0):
            control.set(clock_s=minutes * 60.0)
            scene.hold(_HOLD_S)
        control.set()


FAULTS = (
    Fault("clock jumps", "clock", "The wall clock of the service jumps an hour ahead, and two hours back",
          "as if nothing were: deadlines know no wall clock, and no header of a proxy is believed that says an hour",
          partial(jumped, jumps=(3600.0, -3600.0), lost_to_clock=_LOST_TO_LOAD)),
    Fault("clock ahead of the proxy's", "clock", "The wall clock of the service is 5 s ahead of that of the proxy",
          f"at most {_UNTIL_KNOWN} answers believe the header, and are from below the model",
          partial(jumped, jumps=(5.0,), lost_to_clock=_UNTIL_KNOWN)),
    Fault("clocks of proxies", "clock", "Of three proxies, one has the right clock, one is 5 s behind, one 5 s ahead",
          f"at most {_UNTIL_KNOWN} answers through the one behind are from below the model; the others as usual",
          partial(apart, seconds=5.0)),
    Fault("clocks of replicas", "clock", "Of two replicas on one Redis, one is 4 minutes ahead, then 4 behind",
          "each sees what the other has acknowledged; no event lost or twice", disagreeing),
)  # fmt: skip
