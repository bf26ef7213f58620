"""Every error of the service, in one tree. Those that the caller can correct are in `request_errors.py`.

    ServiceError
    ├── RequestError               the caller can correct it
    │   ├── BadRequest             400  bad_request
    │   ├── PreflightRefused       400  preflight_refused  a page of another origin may not send it
    │   ├── Unauthorized           401  unauthorized
    │   ├── Forbidden              403  forbidden
    │   ├── NotFound               404  not_found
    │   │   └── UnknownSpace       404  unknown_space      no space has this name, or the key does not open it
    │   ├── TooSlow                408  too_slow           its body took too long to arrive
    │   ├── Conflict               409  conflict           not possible in the present state
    │   ├── CursorGone             410  cursor_gone        it has expired, or its user was erased
    │   ├── BodyTooLarge           413  body_too_large
    │   ├── TargetTooLong          414  target_too_long
    │   ├── EncodedBody            415  unsupported_content_encoding
    │   ├── HeadTooLarge           431  head_too_large
    │   ├── TooManyRequests        429  too_many_requests  above the rate of the API key
    │   │   └── Crowded            429  too_many_requests  too many requests of one space are in progress
    │   └── InvalidRequest         422  invalid_request    carries `errors`, one entry for each fault
    │       ├── CursorRefused      422  invalid_cursor     not made by this service, or for another user
    │       ├── UnknownSegment     422  unknown_segment
    │       └── ModelRefused       422  model_refused      the artefact cannot be served; the old model stays
    ├── StoreUnavailable           503  state_unavailable  Redis is unavailable, slow, or acknowledged too few copies
    ├── TooManyBodies              503  too_many_bodies    more bytes of bodies are on their way than the service holds
    ├── TooManyStreams             503  too_many_streams   the limit of open console streams is reached
    ├── WorkerAway                 503  worker_away        a worker did not report its metrics
    ├── Draining                   503  draining           the process is shutting down
    ├── ModelAttemptFailed         503  model_error        a rung failed: /recommend goes one rung down
    │   ├── ModelError             503  model_error        the engine or its session broke
    │   ├── Overloaded             503  overload           the queue is full, or the wait would be too long
    │   ├── FilterNotReady         503  filter_not_ready   a new filter is not built, or not any more
    │   ├── ModelEvicted           503  model_evicted      the model is not in memory; it is being opened again
    │   └── DeadlineExceeded       503  deadline           the answer came, or would come, too late
    │       └── StateStale         503  state_stale        there is too much history to encode
    └── StartupError               –    the service cannot start; the message names the cause
        ├── SettingsError          –    a setting is unknown or has a bad value
        ├── PolicyError            –    the policies file is not valid
        └── ArtifactError          –    the artefact is missing, damaged or of another format

`status` and `reason` are stable: clients and dashboards may rely on them. The caller sees `str(error)` of a
RequestError; that of any other class is only logged.
"""

# ruff: noqa: N818 - the names say what happened
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ServiceError(Exception):
    """Root of the tree.

    Attributes:
        status: The HTTP status of the answer.
        reason: A stable code for clients, metrics and logs.
        title: The title of the problem document.
    """

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    @property
    def public_detail(self) -> str:
        """The detail that the caller may read."""
        return self.title

    @property
    def headers(self) -> dict[str, str]:
        """Additional headers of the answer."""
        return {}

    @property
    def errors(self) -> Sequence[Mapping[str, Any]] | None:
        """The `errors` member of the problem document; None leaves it out."""
        return None


class _TryLater(ServiceError):
    status = 503
    retry_after_s: ClassVar[int] = 1

    @property
    def headers(self) -> dict[str, str]:
        """The seconds to wait."""
        return {"Retry-After": str(self.retry_after_s)}


class StoreUnavailable(_TryLater):
    """Redis is unavailable, too slow, or acknowledged fewer copies than the durability setting requires.

    Attributes:
        cause: One of `service.store.redis.redis_causes.CAUSES`.
    """

    reason = "state_unavailable"
    title = "The event store is unavailable"

    def __init__(self, detail: str = "", *, cause: str = "other") -> None:
        super().__init__(detail)
        self.cause = cause


class WorkerAway(_TryLater):
    """Another worker of this service does not answer, so the counts of all workers cannot be summed."""

    reason = "worker_away"
    title = "A worker does not answer"


class TooManyBodies(_TryLater):
    """More bytes of unanswered requests are held than the setting allows."""

    reason = "too_many_bodies"
    title = "Too many bodies are being received"


class TooManyStreams(_TryLater):
    """The limit of open console streams is reached."""

    reason = "too_many_streams"
    title = "Too many streams are open"


class Draining(_TryLater):
    """The process is shutting down."""

    reason = "draining"
    title = "Shutting down"


class ModelAttemptFailed(_TryLater):
    """A model rung gave no answer; `/recommend` goes one rung down."""

    reason = "model_error"
    title = "The model is unavailable"


class ModelError(ModelAttemptFailed):
    """The engine, or one of its sessions, failed."""


class Overloaded(ModelAttemptFailed):
    """The batch queue is full, or the predicted wait is longer than the request has left."""

    reason = "overload"
    title = "Too many requests are waiting"


class DeadlineExceeded(ModelAttemptFailed):
    """The answer came, or would come, after the deadline."""

    reason = "deadline"
    title = "The deadline has passed"


class StateStale(DeadlineExceeded):
    """The encoder state is older than the history, and it cannot be brought up to date before the deadline.

    Args:
        message: What the deadline did not allow.
        tried: Whether the encoder was started; False if the forecast already ruled it out.
    """

    reason = "state_stale"
    title = "The history cannot be encoded in time"

    def __init__(self, message: str, *, tried: bool = False) -> None:
        super().__init__(message)
        self.tried = tried


class FilterNotReady(ModelAttemptFailed):
    """The engine does not hold the filter: it is not built in time, its caller's ration is spent, or it was dropped.

    The model is not to blame.
    """

    reason = "filter_not_ready"
    title = "The filter is not ready in time"


class ModelEvicted(ModelAttemptFailed):
    """The model made room for those of other spaces. It is opened again behind the answers."""

    reason = "model_evicted"
    title = "The model is not in memory"


class StartupError(ServiceError):
    """The service cannot start; the message names the cause and, if it is known, the remedy."""

    reason = "startup"


class SettingsError(StartupError):
    """A setting is unknown or has a bad value."""

    reason = "settings"


class PolicyError(StartupError):
    """The policies are not valid."""

    reason = "policies"


class ArtifactError(StartupError):
    """The artefact is missing, damaged or of another format."""

    reason = "artifact"
