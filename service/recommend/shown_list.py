"""The record of an answer's list (`service.exposures.exposure`), and what is watched of it (`service.watch`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from service.artifact.array_types import Array
from service.engine.decoding import Decoding, Strategy
from service.exposures.exposure import Exposure, packed, subject_name
from service.recommend.made import Made
from service.recommend.request_plan import Plan
from service.store.log_streams import Entry
from service.watch.counting import ShownList, place_of


def entry_of(plan: Plan, made: Made, list_id: str) -> Entry:
    """Returns the entry of a list.

    Args:
        plan: The request and the choices made for it.
        made: The list.
        list_id: Its id.
    """
    listing, model, sampled = made.listing, plan.model, _sampled(made.strategy)
    log_propensities, drawn = _law(made) if sampled else (np.zeros(len(listing.items), np.float32), 0)
    ids = model.catalogue.item_ids
    exposure = Exposure(
        list_id=list_id,
        request_id=plan.context.request_id,
        subject=subject_name(plan.profile.subject),
        time_ms=plan.now_ms,
        scene=plan.request.scene,
        k=plan.request.k,
        items=[ids[item] for item in listing.items.tolist()],
        scores=np.ascontiguousarray(listing.scores, np.float32),
        log_propensities=log_propensities,
        drawn=drawn,
        strategy=made.strategy,
        parameters=_parameters(plan.decoding, made.strategy),
        segment=plan.segment,
        explored=plan.explored and made.strategy == plan.decoding.strategy,
        source=made.source,
        scorers=listing.scorers,
        rung=made.rung,
        reason=made.reason,
        model_version=model.version,
        policies_version=plan.placement.policies.digest,
        catalogue_version=model.catalogue_version,
        arms=plan.placement.counted,
        filter=plan.request.filter,
        excluded=len(plan.limits.excluded),
        history_version=plan.profile.record.version,
        seed=plan.seed() if sampled else None,
    )
    draw = listing.draw
    return exposure.entry(packed(draw.items, draw.scores) if sampled and draw is not None else b"")


def watched(plan: Plan, made: Made, list_id: str) -> ShownList:
    """Returns what is watched of a list; arguments as of `entry_of`."""
    listing, profile = made.listing, plan.profile
    best = made.rung == "full" and made.source == plan.model.engine.source and not _sampled(made.strategy)
    return ShownList(
        list_id,
        place_of(list_id if profile.subject is None else profile.subject.tag),
        plan.segment,
        listing.items,
        listing.scores if best else None,
        profile.seen,
        len(plan.history),
    )


def _sampled(strategy: Strategy | None) -> bool:
    return strategy is not None and Decoding(strategy).sampled


def _law(made: Made) -> tuple[Array | None, int]:
    """The log-propensities of a sampled list, and how many of its positions were drawn; the others fill it up."""
    draw, n = made.listing.draw, len(made.listing.items)
    if draw is None or draw.log_propensities is None:
        return None, n
    drawn = len(draw.log_propensities)
    return np.concatenate([draw.log_propensities, np.zeros(n - drawn, draw.log_propensities.dtype)]), drawn


def _parameters(decoding: Decoding, strategy: Strategy | None) -> Mapping[str, float | None]:
    """The parameters that the list was made with; null where they had no part in it."""
    sampled = _sampled(strategy)
    return {
        "temperature": decoding.temperature if sampled else None,
        "top_p": min(decoding.nucleus, 1.0) if sampled else None,
        "beam_width": decoding.beam_width if strategy == "beam" else None,
    }
