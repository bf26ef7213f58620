"""Every error of the service, in one tree.

    ServiceError
    ├── RequestError               the caller can mend it
    │   ├── BadRequest             400  bad_request
    │   ├── Unauthorized           401  unauthorized
    │   ├── Forbidden              403  forbidden
    │   ├── NotFound               404  not_found
    │   ├── TooSlow                408  too_slow           its body took too long to arrive
    │   ├── Conflict               409  conflict           not in the present state of things
    │   ├── BodyTooLarge           413  body_too_large
    │   ├── TargetTooLong          414  target_too_long
    │   ├── HeadTooLarge           431  head_too_large
    │   ├── TooManyRequests        429  too_many_requests  more than the rate of its API key
    │   └── InvalidRequest         422  invalid_request    carries `errors`, one entry per fault
    │       ├── UnknownSegment     422  unknown_segment
    │       └── ModelRefused       422  model_refused      the artefact cannot be served; the old model is
    ├── StoreUnavailable           503  state_unavailable  Redis is away, slow, or acknowledged too few copies
    ├── TooManyStreams             503  too_many_streams   as many consoles are open as may be
    ├── WorkerAway                 503  worker_away        the metrics of all workers cannot be added up
    ├── Draining                   503  draining           the process is shutting down
    ├── ModelAttemptFailed         503  model_error        a rung failed: /recommend goes one rung down
    │   ├── ModelError             503  model_error        the engine or its session broke
    │   ├── Overloaded             503  overload           the queue is full, or the wait would be too long
    │   └── DeadlineExceeded       503  deadline           the answer would come, or came, too late
    │       ├── StateStale         503  state_stale        because there is too much history to encode
    │       └── FilterNotReady     503  deadline           because a new filter is still being worked out
    └── StartupError               –    the service cannot start; the message names the cause
        ├── SettingsError          –    a setting is unknown or has a bad value
        ├── PolicyError            –    the policies file does not fit
        └── ArtifactError          –    the artefact is missing, damaged or of another format

`status` and `reason` are stable: clients and dashboards may rely on them. `str(error)` of a RequestError is
shown to the caller; of any other class it is only logged.
"""

# ruff: noqa: N818 - the names say what happened
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ServiceError(Exception):
    """Root of the tree."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    @property
    def public_detail(self) -> str:
        """What the caller may read."""
        return self.title

    @property
    def headers(self) -> dict[str, str]:
        return {}

    @property
    def errors(self) -> Sequence[Mapping[str, Any]] | None:
        """The `errors` member of the problem document."""
        return None


class RequestError(ServiceError):
    """The caller can mend it."""

    @property
    def public_detail(self) -> str:
        return str(self) or self.title


class BadRequest(RequestError):
    status = 400
    reason = "bad_request"
    title = "Bad request"


class Unauthorized(RequestError):
    status = 401
    reason = "unauthorized"
    title = "Authentication required"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):
    status = 403
    reason = "forbidden"
    title = "Not allowed"


class NotFound(RequestError):
    status = 404
    reason = "not_found"
    title = "Not found"


class TooSlow(RequestError):
    status = 408
    reason = "too_slow"
    title = "The request took too long to arrive"


class Conflict(RequestError):
    status = 409
    reason = "conflict"
    title = "Not possible now"


class BodyTooLarge(RequestError):
    status = 413
    reason = "body_too_large"
    title = "Body too large"


class TargetTooLong(RequestError):
    status = 414
    reason = "target_too_long"
    title = "The path and query are too long"


class HeadTooLarge(RequestError):
    status = 431
    reason = "head_too_large"
    title = "Too many headers, or too large ones"


class TooManyRequests(RequestError):
    status = 429
    reason = "too_many_requests"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self._retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self._retry_after_s)}


class InvalidRequest(RequestError):
    """`errors` holds one mapping per fault: `loc` (list of keys and indices), `message`, `type`."""

    status = 422
    reason = "invalid_request"
    title = "Invalid request"

    def __init__(self, detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(detail)
        self._errors = list(errors)

    @property
    def errors(self) -> Sequence[Mapping[str, Any]]:
        return self._errors


class UnknownSegment(InvalidRequest):
    reason = "unknown_segment"
    title = "Unknown segment"


class ModelRefused(InvalidRequest):
    """The model is damaged, does not fit, or fails its check. What was served before still is."""

    reason = "model_refused"
    title = "The model cannot be served"


class _TryLater(ServiceError):
    status = 503
    retry_after_s: ClassVar[int] = 1

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s)}


class StoreUnavailable(_TryLater):
    """Redis is away, too slow, or fewer copies than the durability setting asks for were acknowledged."""

    reason = "state_unavailable"
    title = "The event store is unavailable"


class WorkerAway(_TryLater):
    """Another worker of this service does not answer, so what all of them counted cannot be added up."""

    reason = "worker_away"
    title = "A worker does not answer"


class TooManyStreams(_TryLater):
    """As many consoles watch this process as may."""

    reason = "too_many_streams"
    title = "Too many streams are open"


class Draining(_TryLater):
    reason = "draining"
    title = "Shutting down"


class ModelAttemptFailed(_TryLater):
    reason = "model_error"
    title = "The model is unavailable"


class ModelError(ModelAttemptFailed):
    """The engine, or its session, broke."""


class Overloaded(ModelAttemptFailed):
    """The batch queue is full, or the predicted wait is longer than the request has left."""

    reason = "overload"
    title = "Too many requests are waiting"


class DeadlineExceeded(ModelAttemptFailed):
    reason = "deadline"
    title = "The deadline has passed"


class StateStale(DeadlineExceeded):
    """The encoder state is behind the log, and bringing it up to date does not fit the deadline. `tried`: the encoder
    was asked, and did not answer in time."""

    reason = "state_stale"
    title = "The history cannot be encoded in time"

    def __init__(self, message: str, *, tried: bool = False) -> None:
        super().__init__(message)
        self.tried = tried


class FilterNotReady(DeadlineExceeded):
    """A filter that was not used before is still being worked out: no fault of the model."""

    title = "The filter is not ready in time"


class StartupError(ServiceError):
    """The service cannot start; the message names the cause and, where it is known, the remedy."""

    reason = "startup"


class SettingsError(StartupError):
    reason = "settings"


class PolicyError(StartupError):
    reason = "policies"


class ArtifactError(StartupError):
    reason = "artifact"
