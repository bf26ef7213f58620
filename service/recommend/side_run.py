"""Runs of a planned request beside the answers: nothing is stored, cached or recorded. Not for the event loop."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.engine.run_groups import result_of
from service.history.profile import pending_encoding
from service.recommend.model_list import decode_job, listing_of
from service.recommend.request_plan import Plan


def encoded(plan: Plan, history_cap: int) -> npt.NDArray[np.float32]:
    """Returns [d] the hidden state of the history; what must be encoded for it is kept nowhere.

    Args:
        plan: The request.
        history_cap: Events that a log keeps.

    Raises:
        ModelError: The encoder failed.
    """
    pending = pending_encoding(plan.profile, plan.history, history_cap=history_cap)
    if pending is None:
        assert plan.profile.base is not None  # noqa: S101 - with nothing to encode there is a base
        return plan.profile.base.h
    if not len(pending.events) and pending.user is None:
        return plan.model.start_h
    return result_of(plan.model.engine.encode([pending.job()])[0]).h


def listed(plan: Plan, h: npt.NDArray[np.float32]) -> list[str]:
    """Returns the ids of the items that the model lists from a hidden state [d].

    Raises:
        ModelError: The decoder failed.
    """
    decoded = result_of(plan.model.engine.decode([decode_job(plan, "full", h)])[0])
    ids = plan.model.catalogue.item_ids
    return [ids[item] for item in listing_of(plan, decoded).items.tolist()]
