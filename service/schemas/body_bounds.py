"""Bounds the work that one body can cause: its members are counted before, and its faults cut off after, validation.

The validator builds an object for each fault, and a body of 1 MB has room for 150,000 of them. The count below looks at
no more of a body than the bound allows it to hold; bodies that are short enough are not even counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from service.common.printable import shortened
from service.common.request_errors import BadRequest, InvalidRequest

# Faults that are listed whatever their place. Beyond them only the first one of each element of a list is, so that a
# client learns every bad event of a batch.
FAULTS_MAX = 100
ELEMENTS_MAX = 1000
# Names are up to 64 characters long, so only an unknown member's name is ever cut.
_STEP_MAX = 64
_MESSAGE_MAX = 500

# A body this small is validated whatever it holds, so that a wrong member is named.
_NODES_ALWAYS = 1000

# Bytes that are counted before the bound is looked at again.
_BLOCK = 8192
# As deep as the validator's own parser follows.
_DEPTH_MAX = 200


@cache
def most_nodes(body: type[BaseModel]) -> int:
    """Returns how many containers, members and elements a body of this model may have: all that a valid one can have.

    Raises:
        ValueError: A list or mapping of the model has no largest size.
    """
    schema = body.model_json_schema()
    return max(_NODES_ALWAYS, _nodes(schema, schema.get("$defs", {}), body.__name__))


def _nodes(schema: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> int:
    if "$ref" in schema:
        return _nodes(definitions[schema["$ref"].rpartition("/")[2]], definitions, where)
    if "properties" in schema:
        fields = schema["properties"].items()
        return 1 + sum(1 + _nodes(field, definitions, f"{where}.{name}") for name, field in fields)
    for either in ("anyOf", "oneOf"):
        if either in schema:
            return max(_nodes(one, definitions, where) for one in schema[either])
    kind = schema.get("type")
    if kind not in ("array", "object"):
        return 0
    most = schema.get("maxItems" if kind == "array" else "maxProperties")
    if most is None:
        raise ValueError(f"{where} has no largest size; give its field a max_length")
    # A mapping whose keys have a pattern names the schema of its values by that pattern.
    elements = [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), Mapping)]
    elements += schema.get("patternProperties", {}).values()
    return 1 + int(most) * (1 + max(_nodes(element, definitions, where) for element in elements))


def check_nodes(raw: bytes, most: int) -> None:
    """Refuses a JSON text with more than `most` containers, members and elements, before anything is built from it.

    The count is an upper bound: an opening bracket for each container, and a comma for each member but the first. The
    work does not grow with what is beyond the bound.

    Args:
        raw: The text, valid JSON or not.
        most: The largest number.

    Raises:
        BadRequest: The text is nested more deeply than a parser follows.
        InvalidRequest: There are too many.
    """
    if len(raw) <= most or not _may_have_more(raw, most):
        return
    # Now without what is in strings. There are at most two strings for each node.
    plain = raw.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in raw else raw
    nodes = quotes = opened = 0
    for start in range(0, len(plain), _BLOCK):
        parts = plain[start : start + _BLOCK].split(b'"')
        outside = b"".join(parts[quotes % 2 :: 2])  # after an odd number of quotes the block begins in a string
        quotes += len(parts) - 1
        brackets = outside.count(b"[") + outside.count(b"{")
        nodes += brackets + outside.count(b",")
        opened += brackets - outside.count(b"]") - outside.count(b"}")
        if opened > _DEPTH_MAX:
            raise BadRequest(f"the body is nested more than {_DEPTH_MAX} deep")
        if nodes > most or quotes > 4 * most:
            message = f"the body has more than {most} members and elements, which no valid one has"
            raise InvalidRequest(message, [{"loc": [], "message": message, "type": "too_many_members"}])


def _may_have_more(raw: bytes, most: int) -> bool:
    """Returns whether a text has more than `most` commas and opening brackets, those in strings included."""
    found = 0
    for start in range(0, len(raw), _BLOCK):
        block = raw[start : start + _BLOCK]
        found += block.count(b",") + block.count(b"[") + block.count(b"{")
        if found > most:
            return True
    return False


def listed(faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the `errors` of a problem document: one entry for each fault, as far as the bounds allow.

    Args:
        faults: As pydantic lists them, with `loc`, `msg` and `type`.
    """
    kept = [_entry(fault) for fault in _chosen(faults)]
    if len(kept) < len(faults):
        left = len(faults) - len(kept)
        kept.append({"loc": [], "message": f"{left} more faults are not listed", "type": "more_faults"})
    return kept


def _chosen(faults: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    yield from faults[:FAULTS_MAX]
    before = faults[FAULTS_MAX - 1]["loc"][:2] if len(faults) > FAULTS_MAX else ()
    elements = 0
    for fault in faults[FAULTS_MAX:]:
        place = fault["loc"][:2]
        # The faults of one element follow each other.
        if place != before and len(place) > 1 and isinstance(place[1], int) and elements < ELEMENTS_MAX:
            elements += 1
            yield fault
        before = place


def _entry(fault: Mapping[str, Any]) -> dict[str, Any]:
    loc = [step if isinstance(step, int) else shortened(step, _STEP_MAX) for step in fault["loc"]]
    message = shortened(fault["msg"].removeprefix("Value error, "), _MESSAGE_MAX)
    entry: dict[str, Any] = {"loc": loc, "message": message, "type": fault["type"]}
    if len(loc) > 1 and loc[0] == "events" and isinstance(loc[1], int):
        entry["index"] = loc[1]
    return entry
