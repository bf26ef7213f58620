"""What the service knows about a request before it has read the body."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.common.deadline import Clock, Deadline

# Ids that are safe in a log and in a header. Any other id is replaced, not refused.
_SAFE_ID = re.compile(rb"^[A-Za-z0-9._:/+=@-]{1,128}\Z")


@dataclass(slots=True)
class RequestContext:
    """One request, from its arrival to its answer.

    Attributes:
        request_id: The caller's id, or a new one.
        began: When the request reached the first proxy, in monotonic seconds; never later than `arrived`.
        arrived: When it reached this process, in monotonic seconds.
        clock: The monotonic clock.
        least_wait_s: `Waits.quickest`. A budget no longer than this counts from `arrived`, any other from `began`.
        caller: Who asks, to share out what callers can use up: the name of the key, else the client's address.
        prefix: Path prefix under which the caller reaches the service, with the version of the API if the caller named
            it; "" for none. Links to other pages begin with it.
        source: Label of the metric, set by the route.
        facts: Fields of the log line, set by the route.
        headers: The first value of each header, by its name in lower case.
        space: Name of the space that the request means.
        hurried: Whether too many requests of its space are in progress for it to take any time.
    """

    request_id: str
    began: float
    arrived: float
    clock: Clock
    least_wait_s: float = 0.0
    caller: str = ""
    prefix: str = ""
    source: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    space: str = "default"
    hurried: bool = False

    def deadline(self, budget_ms: float) -> Deadline:
        """Returns the deadline for a budget in milliseconds."""
        budget_s = budget_ms / 1000.0
        return Deadline.after(budget_s, self.clock, began=self.began if self.least_wait_s < budget_s else self.arrived)

    def elapsed_ms(self) -> float:
        """Returns the milliseconds since the arrival: the time spent in this service, not in front of it."""
        return (self.clock() - self.arrived) * 1000.0


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Returns the first value of an ASGI header, None if it is missing; `name` is in lower case."""
    return next((value for key, value in headers if key == name), None)


def request_id(given: bytes | None) -> str:
    """Returns the caller's id if it is safe to log and to send, else a new one."""
    if given is not None and _SAFE_ID.match(given):
        return given.decode("ascii")
    return os.urandom(16).hex()
