"""Values in request bodies: ids, names, times and features. None of them is silently converted."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from service.common.times import time_ms

# Anything but C0, DEL and C1: an id may hold spaces and any printable character.
_ID_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]{1,128}$"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FEATURE_LENGTH_MAX = 256
# A seed that draws a list anew.
FRESH = "fresh"
_INTEGER_BELOW = 2**63


def without_control_characters(value: str) -> str:
    """Returns a text as it is. Raises ValueError if it has control characters."""
    if _CONTROL_CHARACTER.search(value):
        raise ValueError("control characters are not allowed")
    return value


def _time_ms(value: Any, info: ValidationInfo) -> int:
    """Converts an ISO 8601 time with a zone, epoch seconds or epoch milliseconds to epoch milliseconds."""
    ms = time_ms(value)
    latest = (info.context or {}).get("latest_ms")
    if latest is not None and ms > latest:
        raise ValueError("the timestamp is too far in the future")
    return ms


def _feature(value: Any) -> str | int | float | bool:
    """Returns a value that a feature or a context may have, as it is."""
    match value:
        case bool():
            return value
        case str() if len(value) <= _FEATURE_LENGTH_MAX:
            return value
        case int() if -_INTEGER_BELOW <= value < _INTEGER_BELOW:
            return value
        case float() if math.isfinite(value):
            return value
    raise ValueError(f"neither a text of at most {_FEATURE_LENGTH_MAX} characters, a finite number, true nor false")


def _seed(value: Any) -> int | str:
    """Returns a seed: a number, or `fresh`."""
    if value == FRESH or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INTEGER_BELOW):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"neither a whole number from 0 to {_INTEGER_BELOW - 1} nor {FRESH}")


Id = Annotated[
    str,
    Field(min_length=1, max_length=128),
    AfterValidator(without_control_characters),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 128, "pattern": _ID_PATTERN}),
]
Name = Annotated[
    str,
    Field(min_length=1, max_length=64),
    AfterValidator(without_control_characters),
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
# One function, not a union: a union reports a fault for each of its types.
Feature = Annotated[
    str | int | float | bool,
    PlainValidator(_feature),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": _FEATURE_LENGTH_MAX},
                {"type": "integer", "minimum": -_INTEGER_BELOW, "maximum": _INTEGER_BELOW - 1},
                {"type": "number"},
                {"type": "boolean"},
            ]
        }
    ),
]
# One function as well.
Seed = Annotated[
    int | Literal["fresh"],
    PlainValidator(_seed),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": _INTEGER_BELOW - 1},
                {"type": "string", "const": FRESH},
            ]
        }
    ),
]
