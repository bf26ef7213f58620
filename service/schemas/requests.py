"""Bodies of the HTTP interface. Unknown fields are refused, and nothing is silently converted."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from service.common.deadline import SECONDS_BELOW
from service.common.errors import BadRequest, InvalidRequest
from service.engine.decoding import Decoding, Strategy
from service.policies.policies import Policies

MAX_INLINE_EVENTS = 200
MAX_EVENTS = 1000
MAX_EXCLUDED = 1000
# All but C0, DEL and C1: an id may hold spaces and any other letter.
_ID_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]{1,128}$"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ABSURD_TIME = 1e18


def _no_control_characters(value: str) -> str:
    if _CONTROL_CHARACTER.search(value):
        raise ValueError("control characters are not allowed")
    return value


def _time_ms(value: Any, info: ValidationInfo) -> int:
    """Milliseconds since 1970 of an ISO 8601 time with a zone, epoch seconds or epoch milliseconds."""
    ms = _iso_ms(value) if isinstance(value, str) else _epoch_ms(value)
    if ms <= 0:
        raise ValueError("a timestamp before 1970")
    latest = (info.context or {}).get("latest_ms")
    if latest is not None and ms > latest:
        raise ValueError("a timestamp too far in the future")
    return ms


def _iso_ms(value: str) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("neither an ISO 8601 time nor a number of seconds or milliseconds") from None
    if moment.tzinfo is None:
        raise ValueError("a time without a zone; append Z or an offset such as +02:00")
    return math.floor(moment.timestamp() * 1000)


def _epoch_ms(value: Any) -> int:
    # The comparison also refuses what is not finite, and integers too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _ABSURD_TIME:
        raise ValueError("neither an ISO 8601 time nor a number of seconds or milliseconds")
    return math.floor(value * 1000 if abs(value) < SECONDS_BELOW else value)


Id = Annotated[
    str,
    Field(min_length=1, max_length=128),
    AfterValidator(_no_control_characters),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 128, "pattern": _ID_PATTERN}),
]
Name = Annotated[
    str,
    Field(min_length=1, max_length=64),
    AfterValidator(_no_control_characters),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 64, "pattern": _ID_PATTERN}),
]
TimeMs = Annotated[
    int,
    BeforeValidator(_time_ms),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number", "minimum": 0.001}],
            "description": "ISO 8601 with a zone, epoch seconds or epoch milliseconds.",
        }
    ),
]
Value = Annotated[float, Field(allow_inf_nan=False)]
Feature = Annotated[
    Annotated[str, Field(max_length=256)] | Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | Value | bool,
    Field(union_mode="left_to_right"),
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class InlineEvent(Body):
    """An event of the present session, used for one answer and not stored."""

    item_id: Id
    type: Name = "view"
    timestamp: TimeMs | None = Field(None, description="Now, if not given.")


class DecodingOverride(Body):
    """Takes the place of the segment's decoding, for one answer."""

    strategy: Strategy
    beam_width: int = Field(5, ge=1, le=128)
    top_p: float = Field(0.9, gt=0, le=1)
    temperature: float | None = Field(None, ge=0.05, le=10, description="1.2 for temperature, else 1.")

    def build(self) -> Decoding:
        default = 1.2 if self.strategy == "temperature" else 1.0
        return Decoding(self.strategy, self.beam_width, self.top_p, self.temperature or default)


def _any_of(*alternatives: dict[str, Any]) -> ConfigDict:
    """Says in the JSON schema what the validators below ask for: one of these members, and not null."""
    return ConfigDict(
        json_schema_extra={"anyOf": [{"required": list(one), "properties": dict(one)} for one in alternatives]}
    )


_TEXT = {"type": "string"}
_SOMEONE = ({"user_id": _TEXT}, {"session_id": _TEXT})


class RecommendRequest(Body):
    model_config = _any_of(*_SOMEONE, {"events": {"type": "array", "minItems": 1}})

    user_id: Id | None = None
    session_id: Id | None = None
    events: list[InlineEvent] = Field(default=[], max_length=MAX_INLINE_EVENTS)
    k: int = Field(10, ge=1, le=100)
    scene: Name | None = None
    context: dict[Name, Feature] | None = Field(None, max_length=32)
    filter: dict[Name, Annotated[list[Name], Field(min_length=1, max_length=64)]] | None = Field(
        None, max_length=8, description='Only items with one of the values, e.g. `{"category": ["Sci-Fi"]}`.'
    )
    exclude: list[Id] = Field(default=[], max_length=MAX_EXCLUDED)
    exclude_seen: bool = True
    segment: Name | None = Field(None, description="Takes the place of the segment the rules would choose.")
    decoding: DecodingOverride | None = None
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Makes sampling repeatable.")
    features: dict[Name, Feature] | None = Field(None, max_length=32)
    budget_ms: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False)

    @model_validator(mode="after")
    def _someone(self) -> Self:
        if self.user_id is None and self.session_id is None and not self.events:
            raise ValueError("one of user_id, session_id and events is needed")
        return self


class Event(Body):
    model_config = _any_of(
        *({**someone, **what} for someone in _SOMEONE for what in ({"item_id": _TEXT}, {"type": {"const": "search"}}))
    )

    user_id: Id | None = None
    session_id: Id | None = None
    item_id: Id | None = None
    type: Name
    timestamp: TimeMs
    event_id: Id | None = None
    value: Value | None = Field(None, description="Rating, price, dwell time …")
    query: Annotated[str, Field(max_length=512)] | None = Field(None, description="What was searched for.")
    request_id: Id | None = Field(None, description="The /recommend answer that led here.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.user_id is None and self.session_id is None:
            raise ValueError("user_id or session_id is needed")
        if self.item_id is None and self.type != "search":
            raise ValueError("item_id is needed; only a search may be without")
        return self


class EventsRequest(Body):
    events: list[Event] = Field(min_length=1, max_length=MAX_EVENTS)


class WhyRequest(Body):
    events: list[InlineEvent] = Field(min_length=1, max_length=MAX_INLINE_EVENTS)


class MergeRequest(Body):
    session_id: Id
    user_id: Id


class FallbackRequest(Body):
    mode: Literal["auto", "fallback", "model"]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    expires_in_s: float | None = Field(None, gt=0, le=31_536_000, allow_inf_nan=False)


Why = Annotated[str, Field(min_length=1, max_length=500)]


class ChangeRequest(Body):
    """What an operator says with a change."""

    reason: Why | None = Field(None, description="Kept in the audit.")


class PoliciesRequest(Policies):
    """Policies as in the file, and why."""

    reason: Why | None = Field(None, description="Kept in the audit.")

    def policies(self) -> Policies:
        return Policies(segments=self.segments, default=self.default)


REQUEST_BODIES: tuple[type[BaseModel], ...] = (
    RecommendRequest,
    WhyRequest,
    EventsRequest,
    MergeRequest,
    FallbackRequest,
    ChangeRequest,
    PoliciesRequest,
)


B = TypeVar("B", bound=BaseModel)


def parse(body: type[B], raw: bytes, *, latest_ms: int | None = None) -> B:
    """A validated body.

    Raises:
        BadRequest: not JSON.
        InvalidRequest: every fault, with its place.
    """
    try:
        return body.model_validate_json(raw, strict=True, context={"latest_ms": latest_ms})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        raise BadRequest("the body is not JSON")
    raise InvalidRequest("the body does not fit", [fault(f["loc"], f["msg"], f["type"]) for f in faults])


def fault(loc: tuple[int | str, ...], message: str, kind: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"loc": list(loc), "message": message.removeprefix("Value error, "), "type": kind}
    if len(loc) > 1 and loc[0] == "events" and isinstance(loc[1], int):
        entry["index"] = loc[1]
    return entry
