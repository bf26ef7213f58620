"""The record of an answer's list (`service.exposures.exposure`), and what is watched of it (`service.watch`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.artifact.array_types import Array, FloatArray
from service.engine.decoding import STRATEGIES, Decoding, Strategy
from service.engine.fallback import RecommendationList
from service.exposures.exposure import Exposure, packed, shown_entry, subject_name
from service.recommend.made import Made
from service.recommend.page_token import PageToken
from service.recommend.request_plan import Plan
from service.store.records import Subject
from service.store.streams.log_streams import Entry
from service.watch.counting import ShownList, place_of

_SAMPLED = frozenset(name for name in STRATEGIES if Decoding(name).sampled)


def entry_of(plan: Plan, subject: Subject | None, made: Made, answer: Mapping[str, Any]) -> Entry:
    """Returns the entry of a list.

    What the answer has already is taken from it: its items would have to be looked up in the catalogue again.

    Args:
        plan: The request and the choices made for it.
        subject: Whose list it is; the profile does not say so where the history could not be read.
        made: The list.
        answer: The body of the answer.
    """
    request, listing, strategy = plan.request, made.listing, made.strategy
    # A list that was put into order after its draw is deterministic: the law of the draw is not that of the order.
    sampled = strategy in _SAMPLED and listing.ordered is None
    log_propensities, drawn = _law(listing) if sampled else ([0.0] * len(listing.items), 0)
    exposure: Exposure = {
        "list_id": answer["list_id"],
        "request_id": answer["request_id"],
        "subject": subject_name(subject),
        "time_ms": plan.now_ms,
        "scene": request.scene,
        "k": plan.k,
        "items": [item["item_id"] for item in answer["items"]],
        "scores": np.ascontiguousarray(listing.scores, np.float32),
        "log_propensities": log_propensities,
        "drawn": drawn,
        "set_log_propensity": None,
        "strategy": strategy,
        "parameters": _parameters(plan.decoding, strategy),
        "segment": plan.segment,
        "explored": plan.explored and strategy == plan.decoding.strategy,
        "source": listing.source,
        "scorers": listing.scorers,
        "rung": made.rung,
        "reason": made.reason,
        "model_version": answer["model_version"],
        "policies_version": plan.placement.policies.digest,
        "catalogue_version": plan.model.catalogue_version,
        "arms": plan.placement.counted,
        "filter": request.filter,
        "excluded": len(plan.limits.excluded),
        "history_version": plan.profile.record.version,
        # A list that might have explored is told from others by its seed as well.
        "seed": plan.seed if sampled or (plan.may_explore and strategy is not None) else None,
        "first_rank": 1,
        "asked": None if plan.ranked is None else len(plan.ranked),
    }
    draw = listing.draw
    return shown_entry(exposure, packed(draw.items, draw.scores) if sampled and draw is not None else b"")


def about_of(plan: Plan, made: Made) -> dict[str, Any]:
    """Returns what a page of a list says of its making, in answers and records, as JSON has it."""
    sampled = made.strategy in _SAMPLED
    return {
        "source": made.source,
        "scorers": list(made.listing.scorers),
        "rung": made.rung,
        # A first page that is short has no other.
        "reason": None if made.reason == "not_enough_items" else made.reason,
        "strategy": made.strategy,
        "parameters": _parameters(plan.decoding, made.strategy),
        "segment": plan.segment,
        "explored": plan.explored and made.strategy == plan.decoding.strategy,
        "scene": plan.request.scene,
        "model_version": plan.model.version,
        "policies_version": plan.placement.policies.digest,
        "catalogue_version": plan.model.catalogue_version,
        "arms": dict(plan.placement.arms),
        "counted": dict(plan.placement.counted),
        "filter": plan.request.filter,
        "excluded": len(plan.limits.excluded),
        "history_version": plan.profile.record.version,
        "seed": plan.seed if sampled else None,
        "asked": None if plan.ranked is None else len(plan.ranked),
    }


def page_entry(
    token: PageToken, places: Array, scores: FloatArray, answer: Mapping[str, Any], k: int, now_ms: int
) -> Entry:
    """Returns the entry of a later page of a list.

    Its propensities are those of the first draw: of each item given all those drawn before it, on pages before too, and
    forbidden ones among them. What it was drawn from is recorded with the first page.

    Args:
        token: What was left of the list before this page.
        places: [n] places of the page's items in it.
        scores: [n] their scores.
        answer: The body of the answer.
        k: Items asked for.
        now_ms: Time of the page, in epoch milliseconds.
    """
    about = token.about
    drawn = int((places < token.drawn).sum())
    laws: list[float] | None = [0.0] * len(places)
    if drawn:
        known = token.log_propensities
        laws = None if known is None else [known[at] for at in places[:drawn].tolist()] + [0.0] * (len(places) - drawn)
    exposure: Exposure = {
        "list_id": answer["list_id"],
        "request_id": answer["request_id"],
        "subject": subject_name(Subject.of_tag(token.subject)),
        "time_ms": now_ms,
        "scene": about["scene"],
        "k": k,
        "items": [item["item_id"] for item in answer["items"]],
        "scores": scores,
        "log_propensities": laws,
        "drawn": drawn,
        "set_log_propensity": None,
        "strategy": about["strategy"],
        "parameters": about["parameters"],
        "segment": about["segment"],
        "explored": about["explored"],
        "source": about["source"],
        "scorers": about["scorers"],
        "rung": about["rung"],
        "reason": answer["reason"],
        "model_version": about["model_version"],
        "policies_version": about["policies_version"],
        "catalogue_version": about["catalogue_version"],
        "arms": about["counted"],
        "filter": about["filter"],
        "excluded": about["excluded"],
        "history_version": about["history_version"],
        "seed": about["seed"] if drawn else None,
        "first_rank": token.given + 1,
        "asked": about["asked"],
    }
    return shown_entry(exposure)


def watched(plan: Plan, subject: Subject | None, made: Made, list_id: str) -> ShownList:
    """Returns what is watched of a list.

    Args:
        plan: The request and the choices made for it.
        subject: Whose list it is.
        made: The list.
        list_id: Its id.
    """
    listing, profile = made.listing, plan.profile
    best = made.rung == "full" and made.source == plan.model.engine.source and made.strategy not in _SAMPLED
    return ShownList(
        list_id,
        place_of(list_id if subject is None else subject.tag),
        plan.segment,
        listing.items,
        listing.scores if best else None,
        profile.seen,
        len(plan.history),
    )


def _law(listing: RecommendationList) -> tuple[Array | None, int]:
    """The log-propensities of a sampled list, and how many of its positions were drawn; the others fill it up."""
    draw, n = listing.draw, len(listing.items)
    if draw is None or draw.log_propensities is None:
        return None, n
    drawn = len(draw.log_propensities)
    if drawn == n:
        return draw.log_propensities, n
    return np.concatenate([draw.log_propensities, np.zeros(n - drawn, draw.log_propensities.dtype)]), drawn


def _parameters(decoding: Decoding, strategy: Strategy | None) -> Mapping[str, float | None]:
    """The parameters that the list was made with; null where they had no part in it."""
    if strategy in _SAMPLED:
        return {"temperature": decoding.temperature, "top_p": min(decoding.nucleus, 1.0), "beam_width": None}
    return {"temperature": None, "top_p": None, "beam_width": decoding.beam_width if strategy == "beam" else None}
