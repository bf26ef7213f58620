"""The seed of a sampled list. No I/O.

Without a seed of the caller it follows from the subject, the version of the log and the hour: the same question gets
the same list until something happens, so a page that is loaded again looks the same, whichever replica answers.

Nobody knows whether two requests without a subject come from one visitor, so each of them draws by itself: with a seed
in common, all such visitors of an hour would be shown one draw, and explore together or not at all.
"""

from __future__ import annotations

from hashlib import blake2b

from service.common.request_context import RequestContext
from service.schemas.recommend_request import RecommendRequest
from service.schemas.values import FRESH
from service.store.records import Subject

_HOUR_MS = 3_600_000


def list_seed(
    request: RecommendRequest, context: RequestContext, subject: Subject | None, history_version: str, now_ms: int
) -> int:
    """Returns the seed of the list of a request, 0 … 2⁶³ − 1.

    Args:
        request: The validated body. Its own seed counts first; `fresh` draws anew for each request id.
        context: Has the id of the request, which stands for the subject where there is none.
        subject: Whose list it is; None if it is nobody's.
        history_version: Version of the stored log.
        now_ms: Time of the request, in epoch milliseconds.
    """
    if isinstance(request.seed, int):
        return request.seed
    if request.seed == FRESH:
        return seed_of(context.request_id)
    # Events that the request brings are part of its history, and have no version.
    brought = (f"{event.item_id}\0{event.type}\0{event.timestamp}" for event in request.events)
    of = context.request_id if subject is None else subject.tag
    return seed_of("\0\0".join((of, history_version, str(now_ms // _HOUR_MS), *brought)))


def seed_of(text: str) -> int:
    """Returns a seed, 0 … 2⁶³ − 1, that follows from a text."""
    raw = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1
