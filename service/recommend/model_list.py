"""What the engine is asked for a list, and the list that is made of what it answers. No I/O."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from service.common.errors import FilterNotReady
from service.engine.draw import Draw
from service.engine.fallback import RecommendationList
from service.engine.jobs import EVERYTHING, DecodedList, DecodeJob, ListRequest
from service.guard.guard import ModelRung
from service.lifecycle.served_model import ServedModel
from service.recommend.request_plan import Plan
from service.recommend.ruled_list import ruled


def decode_job(plan: Plan, rung: ModelRung, h: npt.NDArray[np.float32]) -> DecodeJob:
    """Returns the job that decodes the list of a request.

    Args:
        plan: The request.
        rung: The width to decode at.
        h: [d] the hidden state of the history.

    Raises:
        FilterNotReady: The engine does not hold the filter of the request.
    """
    # Items that are named are those that the filter allows already.
    filter_id = plan.filtered.id if plan.ranked is None else EVERYTHING
    if filter_id is None:
        raise FilterNotReady("the engine does not hold the filter")
    request = ListRequest(
        context=plan.model.vocabulary.context.encode(plan.decoder_context()),
        gap_ms=plan.gap_ms(),
        decoding=plan.decoding,
        k=plan.decoded,
        filter_id=filter_id,
        excluded=plan.limits.excluded,
        seed=plan.seed if plan.decoding.sampled else 0,
        width=plan.width(rung) if rung == "narrow" else None,
        signals=plan.signals(),
        group=plan.group(),
        candidates=plan.request.explain,
        ranked=plan.ranked,
        pool=plan.ranked_pool,
    )
    return DecodeJob(h=h, request=request)


def listing_of(plan: Plan, listed: DecodedList) -> RecommendationList:
    """Returns the list of a request, filled up to as many items as it ranks, under its rules.

    Args:
        plan: The request.
        listed: What the engine decoded.
    """
    scorers = listed.scorers or plan.model.ranker.used(plan.group())
    items, scores, draw = _known(listed, plan.model)
    listing = RecommendationList(items, scores, listed.source, scorers, listed.candidates, draw)
    if plan.ruling is None:
        listing = _ordered(plan, listing)
    if len(listing.items) < plan.depth > plan.k and plan.ranked is None:
        listing = _continued(plan, listing)
    if len(listing.items) < plan.depth:
        listing = plan.model.fallback.fill(listing, plan.depth, plan.limits)
    if plan.ruling is None:
        return listing
    # The scores of what fills a list up are on another scale than those that the order was learned from.
    may_order = len(items) >= plan.k and plan.ruling.any_order(plan.k)
    return ruled(plan, listing, order=partial(_ordered, plan) if may_order else None)


def _continued(plan: Plan, listing: RecommendationList) -> RecommendationList:
    """A list of many pages with more items than the model lists: those that rank below it on the ladder."""
    limits = replace(plan.limits, excluded=np.union1d(plan.limits.excluded, listing.items))
    more = plan.model.fallback.by_history(plan.user_history(), plan.depth - len(listing.items), limits)
    last = min(0.0, float(listing.scores.min(initial=0.0)))
    scores = np.concatenate([listing.scores, np.full(len(more.items), last, np.float32)])
    return replace(listing, items=np.concatenate([listing.items, more.items]), scores=scores)


def _ordered(plan: Plan, listing: RecommendationList) -> RecommendationList:
    """The list with its first items in the order that is expected to earn most, where the artefact knows it.

    No draw says how probable the new order was, so the list counts as deterministic.
    """
    ordering = plan.model.ordering
    if ordering is None or not plan.ordered:
        return listing
    places = ordering.order(listing.items, listing.scores)
    if (places == np.arange(len(places))).all():
        return replace(listing, draw=None, ordered="same")
    return replace(
        listing, items=listing.items[places], scores=listing.scores[places], draw=None, ordered="changed"
    )  # fmt: skip


def _known(
    listed: DecodedList, model: ServedModel
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Draw | None]:
    """Items, scores and draw of a list, without items that were added to the catalogue after the request arrived."""
    n_items = len(model.catalogue.item_ids)
    if max(listed.items.tolist(), default=0) < n_items:  # for so few numbers quicker than an array
        return listed.items, listed.scores, listed.draw
    known = listed.items < n_items
    # What is left was drawn by another law: the items that are gone took part.
    draw = None if listed.draw is None else replace(listed.draw, log_propensities=None)
    return listed.items[known], listed.scores[known], draw
