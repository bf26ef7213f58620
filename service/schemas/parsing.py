"""Parses request bodies."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from service.common.request_errors import BadRequest, InvalidRequest
from service.schemas import deprecations
from service.schemas.body_bounds import check_nodes, listed, most_nodes
from service.schemas.not_json import what_it_is

B = TypeVar("B", bound=BaseModel)


def parse(body: type[B], raw: bytes, *, latest_ms: int | None = None, nodes_max: int | None = None) -> B:
    """Parses and validates a JSON body.

    Args:
        body: The model to validate against.
        raw: The bytes of the request.
        latest_ms: The latest timestamp that an event may carry, in epoch milliseconds; None for no limit.
        nodes_max: The most members and elements; None for what a valid body can have.

    Raises:
        BadRequest: The body is not JSON.
        InvalidRequest: The body does not match, or holds more than any valid one; the faults are listed with their
            locations (`body_bounds.listed`).
    """
    check_nodes(raw, most_nodes(body) if nodes_max is None else nodes_max)
    try:
        found = body.model_validate_json(raw, strict=True, context={"latest_ms": latest_ms})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
    else:
        deprecations.note(found)
        return found
    if faults[0]["type"] == "json_invalid":
        raise BadRequest(what_it_is(raw, faults[0]["msg"]))
    raise InvalidRequest("the body is not valid; see errors", listed(faults))
