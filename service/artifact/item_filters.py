"""Filters of items: the allowed values by field. Values of one field are OR-ed, fields are AND-ed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

Filters = Mapping[str, Sequence[str]]


def filter_key(filters: Filters) -> bytes:
    """Returns a cache key: the same for equal filters, whatever the order of their fields and values."""
    return orjson.dumps({name: sorted(set(values)) for name, values in sorted(filters.items())})
