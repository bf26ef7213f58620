"""What a list is made of, so that it can be found again. Pure.

A list follows from its plan: the same question gets the same list for as long as this key is the same. What changes by
itself, as the moment that a rule begins to hold, the next step of the gap, or the hour of a draw, has changed the plan
by then: every request has a plan of its own, made of what is in force when it comes.
"""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import blake2b
from typing import NamedTuple

from service.answers.kept_lists import Question
from service.engine.decoding import Decoding
from service.recommend.request_plan import Plan
from service.schemas.values import FRESH


class ListKey(NamedTuple):
    """What a list is made of, beside the stored history.

    Attributes:
        generation: The model and its catalogue: items, stock, signals, weights.
        user: Rows of the features that the encoder reads; None if it reads none.
        context: Rows of the features, the scene and the control codes that the decoder reads.
        gap_ms: Time since the last event, in the steps that the decoder reads it in.
        decoding: The strategy and its parameters.
        seed: Seed of a list that is drawn; None for one that is not.
        k: Number of items.
        depth: Number of items that are ranked.
        group: The group of users whose weights rank it.
        ordered: Whether it may be put into order.
        filter_id: The engine's number of the filter.
        excluded: Digest of the items that are left out; None for those that the user has seen, and no others.
        ruling: Digest of the rules and the diversity, which a request may make long; None if there are none.
    """

    generation: int
    user: Hashable
    context: bytes
    gap_ms: int
    decoding: Decoding
    seed: int | None
    k: int
    depth: int
    group: int
    ordered: bool
    filter_id: int
    excluded: bytes | None
    ruling: bytes | None


def question_of(plan: Plan) -> Question | None:
    """Returns what the list of a request is found by; None if it is not kept.

    These are not:

    - of events that the request brings: an erasure would not find what was made of them;
    - of items that the request names: they cost little to rank, and much to compare;
    - explained: the reasons need more than the list;
    - drawn anew for each request;
    - of a history whose version is lost, or whose filter is not ready;
    - of no item: it needs no run.
    """
    request, profile, filter_id = plan.request, plan.profile, plan.filtered.id
    record, sampled = profile.record, plan.decoding.sampled
    if request.events or plan.ranked is not None or request.explain or request.seed == FRESH:
        return None
    if sampled and request.seed is None and plan.subject is None:
        return None
    if record.missing is not None or filter_id is None or plan.allows_nothing:
        return None
    stored = bool(record.version or record.seen.count)
    key = ListKey(
        generation=plan.model.generation,
        user=_user(plan),
        context=plan.model.vocabulary.context.encode(plan.decoder_context()).tobytes(),
        gap_ms=plan.gap_ms(),
        decoding=plan.decoding,
        seed=plan.seed if sampled else None,
        k=plan.k,
        depth=plan.depth,
        group=plan.group(),
        ordered=plan.ordered,
        filter_id=filter_id,
        excluded=None if plan.limits.excluded is profile.seen else _digest(plan.limits.excluded.tobytes()),
        ruling=None if plan.ruling is None else plan.ruling.digest,
    )
    return Question(profile.subject if stored else None, record.stamp if stored else "", key)


def _user(plan: Plan) -> Hashable:
    if not plan.model.reads_features:
        return None
    if plan.history.user is not None:
        return plan.history.user
    rows = plan.profile.user_rows
    return () if rows is None else tuple(rows.tolist())


def _digest(of: bytes) -> bytes:
    return blake2b(of, digest_size=16).digest()
