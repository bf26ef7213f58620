"""Errors that the caller can correct. The whole tree is drawn in `service.common.errors`."""

# ruff: noqa: N818 - the names say what happened
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.common.errors import ServiceError


class RequestError(ServiceError):
    """An error that the caller can correct; its text is shown to the caller."""

    @property
    def public_detail(self) -> str:
        """The text of the error."""
        return str(self) or self.title


class BadRequest(RequestError):
    """The body is not JSON, or the bytes are no HTTP request."""

    status = 400
    reason = "bad_request"
    title = "Bad request"


class Unauthorized(RequestError):
    """The key or token is missing or unknown."""

    status = 401
    reason = "unauthorized"
    title = "Authentication required"

    @property
    def headers(self) -> dict[str, str]:
        """The scheme to authenticate with."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):
    """The key or token lacks the right."""

    status = 403
    reason = "forbidden"
    title = "Not allowed"


class NotFound(RequestError):
    """The resource does not exist."""

    status = 404
    reason = "not_found"
    title = "Not found"


class UnknownSpace(NotFound):
    """No space has this name, or the caller's key does not open it."""

    reason = "unknown_space"
    title = "Unknown space"


class TooSlow(RequestError):
    """The body did not arrive in time."""

    status = 408
    reason = "too_slow"
    title = "The request took too long to arrive"


class Conflict(RequestError):
    """The change is not possible in the present state."""

    status = 409
    reason = "conflict"
    title = "Not possible now"


class CursorGone(RequestError):
    """The cursor has expired, or its user was erased: what it continues is there no more."""

    status = 410
    reason = "cursor_gone"
    title = "The list cannot be continued"


class BodyTooLarge(RequestError):
    """The body is larger than the setting allows."""

    status = 413
    reason = "body_too_large"
    title = "Body too large"


class TargetTooLong(RequestError):
    """The path and query are longer than a connection accepts."""

    status = 414
    reason = "target_too_long"
    title = "The path and query are too long"


class EncodedBody(RequestError):
    """The body has a content encoding, such as gzip."""

    status = 415
    reason = "unsupported_content_encoding"
    title = "The body is encoded"

    @property
    def headers(self) -> dict[str, str]:
        """The encoding that is accepted."""
        return {"Accept-Encoding": "identity"}


class PreflightRefused(RequestError):
    """A page of another origin may not send this request."""

    status = 400
    reason = "preflight_refused"
    title = "Refused for pages of other origins"


class HeadTooLarge(RequestError):
    """There are too many headers, or they are too large."""

    status = 431
    reason = "head_too_large"
    title = "Too many headers, or too large ones"


class TooManyRequests(RequestError):
    """The API key has used up its rate; room is left again after `retry_after_s`."""

    status = 429
    reason = "too_many_requests"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self._retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """The seconds to wait."""
        return {"Retry-After": str(self._retry_after_s)}


class Crowded(TooManyRequests):
    """Too many requests of one space are in progress."""

    def __init__(self, detail: str = "too many requests of this space are in progress; try again in a second") -> None:
        super().__init__(detail, retry_after_s=1)


class InvalidRequest(RequestError):
    """The request is not valid.

    `errors` holds one mapping for each fault: `loc` (list of keys and indices), `message` and `type`.
    """

    status = 422
    reason = "invalid_request"
    title = "Invalid request"

    def __init__(self, detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(detail)
        self._errors = list(errors)

    @property
    def errors(self) -> Sequence[Mapping[str, Any]]:
        """The faults, in the order in which they were found."""
        return self._errors


class UnknownSegment(InvalidRequest):
    """The request names a segment that the policies do not have."""

    reason = "unknown_segment"
    title = "Unknown segment"


class ModelRefused(InvalidRequest):
    """The model is damaged, is not compatible, or fails its check. The model in service stays."""

    reason = "model_refused"
    title = "The model cannot be served"
