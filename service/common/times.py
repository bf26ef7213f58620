"""Times as callers and files write them: ISO 8601 with a zone, epoch seconds or epoch milliseconds."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from service.common.deadline import SECONDS_BELOW

# Of numbers from here on up: the unit that makes them a time between 1973 and 5138.
_FINER_UNITS = ((1e17, "nanoseconds"), (1e14, "microseconds"))
# Larger numbers are no time in any unit.
_TIME_MAX = 1e20
_NO_TIME = "neither an ISO 8601 time nor a number of seconds or milliseconds"


def time_ms(value: Any) -> int:
    """Returns a time in epoch milliseconds.

    Args:
        value: ISO 8601 with a zone, epoch seconds or epoch milliseconds.

    Raises:
        ValueError: It is none of these, or before 1970.
    """
    ms = _iso_ms(value) if isinstance(value, str) else _epoch_ms(value)
    if ms <= 0:
        raise ValueError("the timestamp is before 1970")
    return ms


def iso_of(ms: int) -> str:
    """Returns epoch milliseconds in ISO 8601, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _iso_ms(value: str) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{_NO_TIME}; send a number without quotes" if value.isdigit() else _NO_TIME) from None
    if moment.tzinfo is None:
        raise ValueError("a time without a zone; append Z or an offset such as +02:00")
    return math.floor(moment.timestamp() * 1000)


def _epoch_ms(value: Any) -> int:
    # The comparison also rejects infinities, NaN, and integers too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _TIME_MAX:
        raise ValueError(_NO_TIME)
    for least, unit in _FINER_UNITS:
        if abs(value) >= least:
            raise ValueError(f"looks like {unit}; send seconds or milliseconds")
    return math.floor(value * 1000 if abs(value) < SECONDS_BELOW else value)
