"""Bodies of requests for several lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field
from pydantic_core import to_json

from service.common.request_errors import RequestError
from service.schemas.body_bounds import most_nodes
from service.schemas.requests import Body, RecommendRequest, parse

MAX_BATCH = 50
_BUDGET = "Time budget of the whole batch; `GPT4REC_DEADLINE_MS` without one, at most `GPT4REC_DEADLINE_MAX_MS`."


class BatchRequest(Body):
    """Asks for several lists at once. Each entry is a body of `/recommend`, and is answered or refused by itself."""

    requests: list[RecommendRequest] = Field(
        min_length=1, max_length=MAX_BATCH, description="The bodies. A faulty one harms no other."
    )
    budget_ms: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False, description=_BUDGET)


class _Entries(Body):
    """A batch whose entries are not looked at yet."""

    requests: list[Any] = Field(min_length=1, max_length=MAX_BATCH)
    budget_ms: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False)


class Batch:
    """A parsed batch.

    Attributes:
        entries: Each body, or why it is refused.
        budget_ms: Time budget of the whole batch.
    """

    def __init__(self, raw: bytes, *, latest_ms: int) -> None:
        """Parses a batch.

        Args:
            raw: The bytes of the request.
            latest_ms: The latest timestamp that an event may have, in epoch milliseconds.

        Raises:
            RequestError: The batch itself is not valid, or holds more than any valid one.
        """
        whole = parse(_Entries, raw, nodes_max=most_nodes(BatchRequest))
        self.budget_ms = whole.budget_ms
        self.entries: Sequence[RecommendRequest | RequestError] = [_entry(one, latest_ms) for one in whole.requests]


def _entry(body: Any, latest_ms: int) -> RecommendRequest | RequestError:
    try:
        return parse(RecommendRequest, to_json(body), latest_ms=latest_ms)
    except RequestError as error:
        return error


LIST_BODIES: tuple[type[BaseModel], ...] = (BatchRequest,)
for _body in LIST_BODIES:  # now, and not during the first request
    most_nodes(_body)
