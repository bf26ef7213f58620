"""Schemas of the answers to requests for several lists, and for lists that belong to items."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.schemas.responses import Answer, Problem, RankedItem, RecommendAnswer, Warned


class BatchEntry(Answer):
    """What became of one entry of a batch."""

    status: int = Field(description="The status that `/recommend` would have answered with.")
    answer: RecommendAnswer | None = Field(
        description="The answer; its `request_id` is that of the batch with the number of the entry. Null if there is "
        "none."
    )
    problem: Problem | None = Field(description="Why there is no answer; null if there is one.")


class BatchAnswer(Answer):
    """The answers to the entries of a batch, in their order."""

    answers: list[BatchEntry]
    request_id: str


class TogetherAnswer(Answer):
    """What is in baskets together with an item."""

    item_id: str
    items: list[RankedItem]
    source: Literal["baskets", "item_cf"] = Field(
        description="`baskets`: the items are taken together in one basket, and `score` says how often beside how "
        "often each is taken. `item_cf`: nothing is known of baskets, which `warnings` says, and the items are the "
        "nearest by item-CF."
    )
    warnings: Warned
    model_version: str
    request_id: str


class BasketAnswer(RecommendAnswer):
    """A list of what goes with a basket."""

    found_by: Literal["baskets", "item_cf", "popular"] = Field(
        description="What found the items that were ranked: baskets of the data, or, where these know nothing of the "
        "basket, what is listed below the model for someone who took these items, or popular items."
    )
