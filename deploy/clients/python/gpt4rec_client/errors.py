"""What a call can raise, in one tree.

ClientError
├── Unreachable          no connection, or it broke: the service may have done what was asked
├── TimedOut             the call's time is over: the service may have done what was asked
├── BadAnswer            something answered that is not the service, such as a proxy's page
└── Problem              the service answered with a problem document (RFC 9457)
    ├── InvalidRequest   400, 413, 414, 415, 422, 431: the request itself is wrong; `faults` says where
    ├── Unauthorized     401: the key is missing or unknown
    ├── Forbidden        403: the key lacks the right
    ├── NotFound         404
    ├── Conflict         409, 412
    ├── Gone             410: the cursor has expired, or its user was erased
    ├── TooManyRequests  429: the rate of the key is used up; `retry_after_s` says for how long
    └── Unavailable      408, 5xx: not possible now
"""

# ruff: noqa: N818 - the names say what happened
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ClientError(Exception):
    """Root of the tree."""


class Unreachable(ClientError):
    """There is no connection, or it broke before the answer was complete."""


class TimedOut(ClientError):
    """The time of the call is over."""


class BadAnswer(ClientError):
    """What answered is not the service: no JSON, or not the members that it promises."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a request.

    Attributes:
        loc: Path of keys and indices to the faulty value.
        message: What is wrong with it.
        type: A stable code.
        index: Index of the faulty event in its batch.
    """

    loc: tuple[str | int, ...]
    message: str
    type: str
    index: int | None = None


class Problem(ClientError):
    """The service answered with a problem document.

    Attributes:
        status: HTTP status.
        reason: Stable code, such as `unknown_segment`; of an answer that is no problem document, `http_STATUS`.
        title: What happened, in a few words.
        detail: What happened in this case.
        request_id: Name of the request in the logs of the service.
        faults: The faults of the request, if the service lists them.
        retry_after_s: Seconds to wait before the next try, if the service says so.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        title: str,
        detail: str,
        *,
        request_id: str | None = None,
        faults: tuple[Fault, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        listed = "".join(f"; {'.'.join(map(str, fault.loc))}: {fault.message}" for fault in faults[:3])
        super().__init__(f"{status} {reason}: {detail}{listed}")
        self.status, self.reason, self.title, self.detail = status, reason, title, detail
        self.request_id, self.faults, self.retry_after_s = request_id, faults, retry_after_s


class InvalidRequest(Problem):
    """The request itself is wrong: the same request fails again."""


class Unauthorized(Problem):
    """The key is missing or unknown."""


class Forbidden(Problem):
    """The key lacks the right."""


class NotFound(Problem):
    """What was asked for does not exist."""


class Conflict(Problem):
    """Not possible in the present state."""


class Gone(Problem):
    """What a cursor continues is there no more: ask for the list again."""


class TooManyRequests(Problem):
    """The rate of the key is used up."""


class Unavailable(Problem):
    """Not possible now."""


_OF_STATUS: Mapping[int, type[Problem]] = {
    **dict.fromkeys((400, 413, 414, 415, 422, 431), InvalidRequest),
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    **dict.fromkeys((409, 412), Conflict),
    410: Gone,
    429: TooManyRequests,
}
_SERVER_ERROR = 500
_PREFIX = "urn:gpt4rec:problem:"


def problem(status: int, document: Any, retry_after: str | None) -> Problem:
    """Returns the error of an answer whose status is no success.

    Args:
        status: HTTP status.
        document: The body, parsed; None if it is no JSON.
        retry_after: Value of the Retry-After header.
    """
    found = document if isinstance(document, Mapping) else {}
    kind = Unavailable if status >= _SERVER_ERROR else _OF_STATUS.get(status, Problem)
    faults = found.get("errors")
    named = str(found.get("type", ""))
    return kind(
        status,
        named.removeprefix(_PREFIX) if named.startswith(_PREFIX) else f"http_{status}",
        str(found.get("title", "")),
        str(found.get("detail", "the answer is no problem document: something in front of the service answered")),
        request_id=found.get("request_id"),
        faults=tuple(map(_fault, faults)) if isinstance(faults, list) else (),
        retry_after_s=_seconds(retry_after),
    )


def _fault(raw: Mapping[str, Any]) -> Fault:
    return Fault(tuple(raw.get("loc", ())), str(raw.get("message", "")), str(raw.get("type", "")), raw.get("index"))


def _seconds(header: str | None) -> float | None:
    """Returns the seconds of a Retry-After header; the service never sends a date."""
    try:
        seconds = float(header) if header is not None else math.nan
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
