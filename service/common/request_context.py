"""What the service knows of a request before it has read the body."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from service.common.deadline import Clock, Deadline

# Sane: may stand in a log and in a header. Anything else is replaced, not refused.
_SANE_ID = re.compile(rb"^[A-Za-z0-9._:/+=@-]{1,128}\Z")


@dataclass(slots=True)
class RequestContext:
    """One request: `began` and `arrived` are monotonic seconds, `began` never later than `arrived`.

    `least_wait_s` is `Waits.quickest`: a budget no longer than that counts from `arrived`, any other from `began`.
    `facts` are for the log line, `source` for the metric; whoever answers fills them in.
    """

    request_id: str
    began: float
    arrived: float
    clock: Clock
    least_wait_s: float = 0.0
    source: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def deadline(self, budget_ms: float) -> Deadline:
        budget_s = budget_ms / 1000.0
        return Deadline.after(budget_s, self.clock, began=self.began if self.least_wait_s < budget_s else self.arrived)

    def elapsed_ms(self) -> float:
        """Since it arrived: what this service took, without what the caller had spent before."""
        return (self.clock() - self.arrived) * 1000.0


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of an ASGI header; `name` in lower case."""
    return next((value for key, value in headers if key == name), None)


def request_id(given: bytes | None) -> str:
    """The caller's id if it is a sane one, else a new one."""
    if given is not None and _SANE_ID.match(given):
        return given.decode("ascii")
    return os.urandom(16).hex()
