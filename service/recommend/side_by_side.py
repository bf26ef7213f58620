"""The list of a request, and beside it what something else would list for the same question."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from service.common.request_context import RequestContext
from service.recommend.list_seed import seed_of
from service.recommend.recommender import Recommender
from service.schemas.playground_requests import Beside
from service.schemas.recommend_request import RecommendRequest


async def side_by_side(
    recommender: Recommender, request: RecommendRequest, beside: Beside | None, context: RequestContext
) -> list[dict[str, Any]]:
    """Answers a request, and the same one with something else in its place.

    Args:
        recommender: Answers both, at the same time.
        request: The request.
        beside: What is different for the second list; None for one list alone.
        context: Of the request. The second answer has its id with `.beside` behind it.

    Returns:
        The body of each answer.

    Raises:
        InvalidRequest: One of them names a segment, a filter or an arm that does not exist.
    """
    if beside is None:
        return [await recommender.recommend(request, context)]
    if request.seed is None and request.user_id is None and request.session_id is None:
        # The noise of both is the same, as it is for a user, so that what differs is what was asked to differ.
        request = request.model_copy(update={"seed": seed_of(context.request_id)})
    changes: dict[str, Any] = {}
    if beside.segment is not None:
        changes |= {"segment": beside.segment, "decoding": None}
    if beside.policy_rules is not None:
        changes["policy_rules"] = beside.policy_rules
    own = replace(context, request_id=f"{context.request_id[:120]}.beside", facts={})
    other = request.model_copy(update=changes)
    both = await asyncio.gather(
        recommender.recommend(request, context), recommender.recommend(other, own, start=beside.rung)
    )
    return list(both)
