"""What goes with a basket: baskets of the data find the items, and the model ranks them.

The items in the basket count as the newest events of the history, so the answer is `/recommend`'s in everything else:
its rungs, its deadline, its record.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from service.common.request_context import RequestContext
from service.engine.companions import Found
from service.engine.fallback import Constraints
from service.experiments.arms import Arms
from service.history.pseudonyms import Pseudonyms
from service.lifecycle.served_model import ServedModel
from service.recommend.recommender import Recommender
from service.schemas.list_requests import BasketRequest
from service.schemas.recommend_request import MAX_CANDIDATES, InlineEvent, RecommendRequest

# Companions that are ranked for each item that is listed.
_OF_EACH = 5
_TYPE = "cart"


class _OfBasket(RecommendRequest):
    """A request whose events are the basket."""

    EVENTS_ARE = "items of the basket"


class Baskets:
    """Answers requests about baskets."""

    def __init__(self, recommender: Recommender, arms: Arms, ids: Pseudonyms) -> None:
        """Connects the parts.

        Args:
            recommender: Ranks and records.
            arms: Says which model a subject has.
            ids: Pseudonyms of users and sessions.
        """
        self._recommender, self._arms, self._ids = recommender, arms, ids

    async def recommend(self, request: BasketRequest, context: RequestContext) -> dict[str, Any]:
        """Returns the body of the answer.

        Args:
            request: The validated body.
            context: When the request began and arrived; receives the facts for its log line.

        Raises:
            InvalidRequest: The filter has a field that items do not have.
        """
        subject = self._ids.subject(request.user_id, request.session_id)
        model = self._arms.place(subject, None).model
        found = _companions(request, model)
        ids = model.catalogue.item_ids
        asked: RecommendRequest = _OfBasket.model_validate(
            {
                **request.model_dump(exclude={"items", "exclude"}),
                "events": [InlineEvent(item_id=item, type=_TYPE, timestamp=None) for item in request.items],
                "exclude": [*request.exclude, *request.items],
            }
        )
        # A caller must name some items; here there may be none.
        asked = asked.model_copy(update={"candidates": [ids[item] for item in found.items.tolist()]})
        answer = await self._recommender.recommend(asked, context)
        return {**answer, "found_by": found.source}


def _companions(request: BasketRequest, model: ServedModel) -> Found:
    """The items to rank: of baskets as many as there are, and at least as many as are listed."""
    basket = model.indices(request.items)
    excluded = np.unique(model.indices([*request.exclude, *request.items]))
    limits = Constraints(model.tested(model.filter(request.filter or {})).allowed, excluded)
    most = min(MAX_CANDIDATES, _OF_EACH * request.k)
    return model.companions.of(basket, limits, most, request.k)
