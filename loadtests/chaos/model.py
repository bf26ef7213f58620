"""Faults of the model."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from loadtests.chaos.scene import Fault, Scene

_SLOW = frozenset({"deadline", "overload", "latency_budget", "breaker_open", "state_stale"})
_BROKEN = frozenset({"model_error", "error_budget", "breaker_open"})
_HOLD_S = 8.0
_PROMISE = (
    "every list comes in time, from a lower rung where the model fails; events as ever; the model is back by itself"
)


def misbehaving(scene: Scene, reasons: Collection[str], **faults: Any) -> None:
    """Makes the model misbehave for a while."""
    service, control = scene.faulty()
    with scene.load(service.url), scene.fault(reasons=reasons):
        control.set(**faults)
        scene.hold(_HOLD_S)
        control.set()
    scene.promise(service.alive(), "the process ended")


def _fault(name: str, text: str, reasons: Collection[str], promise: str = _PROMISE, **faults: Any) -> Fault:
    return Fault(f"model {name}", "model", text, promise, partial(misbehaving, reasons=reasons, **faults))


FAULTS = (
    _fault("slow", "Every run of the decoder takes 200 ms longer", _SLOW, run_ms=200.0),
    _fault("slow now and then", "One run of the decoder in twenty takes 200 ms longer", _SLOW,
           run_ms=200.0, slow_share=0.05),
    _fault("raises", "Every run of the decoder raises", _BROKEN, raise_share=1.0),
    _fault("raises now and then", "One run of the decoder in five raises", _BROKEN, raise_share=0.2,
           promise="a second, narrow attempt, or a lower rung; the error budget takes the traffic away"),
    _fault("NaN", "Every run decodes from a state that is not a number", _BROKEN, nan_share=1.0),
    _fault("hangs", "A run of the decoder does not end for 8 s", _SLOW, hang=True,
           promise="lists from a lower rung at once, since the wait is known; the next run after it serves as ever"),
)  # fmt: skip
