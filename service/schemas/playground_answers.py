"""Schemas of the playground's answers that hold lists."""

from __future__ import annotations

from pydantic import Field

from service.schemas.responses import Answer, FoundItem, RecommendAnswer, Shares


class ListsAnswer(Answer):
    """A list, or two beside each other, with what a page shows with them."""

    lists: list[RecommendAnswer] = Field(description="The list; behind it the one to compare it with, if asked for.")
    items: list[FoundItem] = Field(description="The items of the lists and of the events, as far as they are known.")
    why: Shares | None = Field(
        description="The share of each event in the first list; null if the model did not make it from these events "
        "alone, or if the artefact has no explainer."
    )
    request_id: str
