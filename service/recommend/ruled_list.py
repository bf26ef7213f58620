"""The list of a request under its rules. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from service.common import logs
from service.engine.fallback import RecommendationList
from service.engine.rule_report import RuleOutcome
from service.recommend.request_plan import Plan
from service.rules.enforce import DrawnBy, Enforcer
from service.rules.items import Items
from service.rules.reserve import Reserve
from service.rules.ruling import Ruling

log = logs.get(__name__)

# The fact of a request whose list is as without rules, because these could not be evaluated.
RULES_FAILED = "rules_failed"


def ruled(
    plan: Plan, listing: RecommendationList, order: Callable[[RecommendationList], RecommendationList] | None = None
) -> RecommendationList:
    """Returns the list under the rules of the request; the same list where there are none.

    Rules hold for the first page: what was ranked and not chosen comes behind it, for the pages that follow.

    A rule that cannot be evaluated takes no list away: the list is then as without rules, and none counts as kept.

    Args:
        plan: The request.
        listing: What ranked the items, `Plan.pool` of them.
        order: Puts the chosen items into order, if they may be.
    """
    if plan.ruling is None:
        return listing
    chosen = _chosen(plan, listing)
    if order is not None:
        chosen = order(chosen)
    if plan.depth == plan.k or len(chosen.items) < plan.k:
        return chosen
    rest = ~np.isin(listing.items, chosen.items)
    items = np.concatenate([chosen.items, listing.items[rest]])
    return replace(chosen, items=items, scores=np.concatenate([chosen.scores, listing.scores[rest]]))


def _chosen(plan: Plan, listing: RecommendationList) -> RecommendationList:
    if plan.ruling is None:
        return listing
    model, k = plan.model, plan.k
    items = Items(model.catalogue, model.fallback.popularity, model.vocabulary.item_index)
    reserve = Reserve(items, model.fallback, plan.limits, plan.user_history)
    try:
        return Enforcer(plan.ruling, k, reserve, DrawnBy(plan.decoding, plan.seed)).of(listing)
    except Exception as error:
        log.error("rules_failed", request_id=plan.context.request_id, **logs.where(error))
        plan.context.facts[RULES_FAILED] = True
        return replace(listing, items=listing.items[:k], scores=listing.scores[:k], rules=_none_kept(plan.ruling))


def _none_kept(ruling: Ruling) -> tuple[RuleOutcome, ...]:
    return tuple(RuleOutcome(active.rule.name, active.label, "not_kept") for active in ruling.rules)
