"""Several lists at once: each entry is answered as `/recommend` answers it, and all share one deadline.

Those that the model makes in one way share a run of the decoder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from service.batching.together import Together
from service.common import logs
from service.common.errors import ServiceError
from service.common.request_context import RequestContext
from service.recommend.recommender import Recommender
from service.schemas.recommend_request import RecommendRequest

log = logs.get(__name__)

# Ids of requests have 128 characters at most; the number of an entry is appended.
_ID_MAX = 120

# The answer of an entry, or why there is none.
Outcome = dict[str, Any] | ServiceError


async def answer_batch(
    recommender: Recommender,
    entries: Sequence[RecommendRequest | ServiceError],
    context: RequestContext,
    budget_ms: float | None,
    admit: Callable[[RecommendRequest], None],
) -> list[tuple[str, Outcome]]:
    """Answers the entries of a batch, all at the same time.

    Args:
        recommender: Answers each of them.
        entries: Each body, or why it is refused.
        context: Of the batch. The deadline of its budget is the deadline of every entry.
        budget_ms: Budget of the batch; None for the default.
        admit: Raises the error of an entry that this caller may not ask for.

    Returns:
        The request id of each entry, and its answer or error, in order.
    """
    most_ms = recommender.budget_ms(budget_ms)
    together = Together(len(entries), context.deadline(most_ms))

    async def one(entry: RecommendRequest | ServiceError, own: RequestContext) -> Outcome:
        if isinstance(entry, ServiceError):
            return entry
        admit(entry)
        return await recommender.recommend(entry, own, most_ms=most_ms, together=together)

    async def outcome(entry: RecommendRequest | ServiceError, own: RequestContext) -> Outcome:
        try:
            return await one(entry, own)
        except ServiceError as error:
            return error
        except Exception as error:
            log.error("batch_entry_broke", request_id=own.request_id, **logs.where(error))
            return ServiceError()
        finally:
            together.ended()

    contexts = [
        replace(context, request_id=f"{context.request_id[:_ID_MAX]}.{number}", facts={})
        for number in range(len(entries))
    ]
    outcomes = await asyncio.gather(*map(outcome, entries, contexts))
    context.facts["lists"] = len(entries)
    return [(own.request_id, outcome) for own, outcome in zip(contexts, outcomes, strict=True)]
