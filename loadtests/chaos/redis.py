"""What may happen to Redis."""

from __future__ import annotations

import os
import signal

from loadtests.chaos.scene import Fault, Scene

AWAY = {"state_unavailable", "deadline", "state_stale", "overload", "breaker_open"}


def killed_embedded(scene: Scene) -> None:
    service = scene.serve()
    assert service.valkey is not None  # noqa: S101 - it embeds one
    with scene.load(service.url), scene.fault(reasons=AWAY, refused=True):
        os.kill(service.valkey.pid, signal.SIGKILL)


FAULTS = (
    Fault(
        "embedded redis kill -9", "redis", "The embedded server is killed",
        "lists without the history, events refused, the server started again by the service", killed_embedded,
    ),
)  # fmt: skip
