"""Schemas of the answers to requests for several lists, and for lists that belong to items."""

from __future__ import annotations

from pydantic import Field

from service.schemas.responses import Answer, Problem, RecommendAnswer


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
