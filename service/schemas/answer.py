"""What all answers have in common: their base, their problems and their warnings.

The schemas of answers serve the OpenAPI document and the tests that check answers against it. Answers are built as
plain dictionaries and serialised by orjson; they are not validated at run time.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of all answers: unknown fields are rejected, so that tests notice them."""

    model_config = ConfigDict(extra="forbid")


class Fault(Answer):
    """One fault of a request."""

    loc: list[str | int] = Field(description="Path of keys and indices to the faulty value.")
    message: str
    type: str
    index: int | None = Field(None, description="Index of the faulty event in the batch.")


class Problem(Answer):
    """An error, as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] | None = None


Warned = Annotated[
    list[str],
    Field(
        description="What in the request had no effect, or not the one that its sender may expect, in sentences. Empty "
        "if there is nothing."
    ),
]
