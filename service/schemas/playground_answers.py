"""Schemas of the playground's answers that hold lists."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.schemas.responses import Answer, FoundItem, MemoryShares, RecommendAnswer, Warned


class Shares(Answer):
    """The share of each event in the state that the first list is decoded from, as `/playground/why` answers."""

    weights: list[float] = Field(description="Share of each event, in the order of the request.")
    start: float = Field(description="Share of the start token.")
    earlier: float = Field(description="Share of all events together that come before those with a share.")
    method: Literal["attention_rollout", "attention", "gradient"]
    memory: MemoryShares | None = Field(description="What was read from memory; null if the network has none to show.")
    model_version: str
    warnings: Warned


class ListsAnswer(Answer):
    """A list, or two beside each other, with what a page shows with them."""

    lists: list[RecommendAnswer] = Field(description="The list; behind it the one to compare it with, if asked for.")
    items: list[FoundItem] = Field(description="The items of the lists and of the events, as far as they are known.")
    why: Shares | None = Field(
        description="The share of each event in the first list; null if the model did not make it from these events "
        "alone, or if the artefact has no explainer."
    )
    request_id: str
