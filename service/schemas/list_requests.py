"""Bodies of requests for several lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from service.common.request_errors import RequestError
from service.schemas.body import Body
from service.schemas.body_bounds import most_nodes
from service.schemas.item_filter import FIELDS_DESCRIPTION, FieldsBody, ItemFilterBody
from service.schemas.parsing import parse
from service.schemas.recommend_request import MAX_EXCLUDED, RecommendRequest
from service.schemas.values import Feature, Id, Name
from service.store.user_features import FEATURES_MAX

MAX_BATCH = 100
MAX_BASKET = 100
_OWN_BUDGET = "Time budget of the answer; `GPT4REC_DEADLINE_MS` without one, at most `GPT4REC_DEADLINE_MAX_MS`."
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


class BasketRequest(Body):
    """Asks for what goes with the items of a basket, with or without a user."""

    items: list[Id] = Field(min_length=1, max_length=MAX_BASKET, description="What is in the basket, oldest first.")
    user_id: Id | None = Field(None, description="Whose basket it is: their stored history counts too.")
    session_id: Id | None = Field(None, description="The anonymous session whose basket it is.")
    k: int = Field(10, ge=1, le=100, description="Number of items to list.")
    scene: Name | None = Field(None, description="Where the list is shown, as in the training data.")
    context: dict[Name, Feature] | None = Field(None, max_length=32, description="Control codes of the list.")
    filter: ItemFilterBody | None = Field(None, description="Restricts the list, as in `/recommend`.")
    fields: FieldsBody | None = Field(None, description=FIELDS_DESCRIPTION)
    exclude: list[Id] = Field(
        default=[],
        max_length=MAX_EXCLUDED - MAX_BASKET,
        description="Items that must not be listed, beside those in the basket.",
    )
    exclude_seen: bool = Field(
        False, description="Leaves out what the user has seen before; the list may then be shorter than `k`."
    )
    features: dict[Name, Feature] | None = Field(
        None, max_length=FEATURES_MAX, description="Features of the user, for this answer; null: the stored ones."
    )
    explain: bool = Field(False, description="Adds `because` to every item, as in `/recommend`.")
    budget_ms: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False, description=_OWN_BUDGET)


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
