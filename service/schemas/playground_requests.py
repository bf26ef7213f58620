"""Bodies of the playground's requests."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from service.schemas.body import Body
from service.schemas.recommend_request import MAX_INLINE_EVENTS, InlineEvent, RecommendRequest
from service.schemas.values import Feature, Name
from service.store.user_features import FEATURES_MAX


class WhyRequest(Body):
    """Events whose share in the encoded state is asked for."""

    events: list[InlineEvent] = Field(min_length=1, max_length=MAX_INLINE_EVENTS)
    features: dict[Name, Feature] | None = Field(
        None, max_length=FEATURES_MAX, description="Features of the user, for encoders that read them."
    )


class Beside(Body):
    """What is different for the second list. What is left out stays as in the first."""

    rung: Literal["item_cf", "popular"] | None = Field(
        None, description="The list is made on this rung, without the model."
    )
    segment: Name | None = Field(None, description="The list is made as for this segment, with its decoding.")
    policy_rules: bool | None = Field(None, description="Whether the rules and the diversity of the policies hold.")


class ListsRequest(Body):
    """Asks for a list, for what the page shows with it, and for a second list to compare it with."""

    request: RecommendRequest = Field(description="The request, as for `/recommend`.")
    beside: Beside | None = Field(None, description="Asks for a second list, and says what is different for it.")

    @model_validator(mode="after")
    def _is_a_first_page(self) -> Self:
        if self.request.cursor is not None:
            raise ValueError("a cursor continues a list of /recommend; send it there")
        return self
