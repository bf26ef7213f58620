"""One attempt to answer a request with the model, and what the guard learns from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from service.common import logs
from service.common.deadline import Deadline
from service.common.errors import (
    DeadlineExceeded,
    FilterNotReady,
    ModelAttemptFailed,
    ModelError,
    Overloaded,
    StateStale,
)
from service.common.metrics import Metrics
from service.engine.draw import Draw
from service.engine.fallback import RecommendationList
from service.engine.jobs import DecodedList, DecodeJob, ListRequest, encode_key
from service.guard.guard import Decision, Guard, ModelRung, Outcome
from service.history.state_keeper import StateKeeper
from service.lifecycle.served_model import ServedModel
from service.recommend.request_plan import Plan

log = logs.get(__name__)


class ModelAttempts:
    """Runs attempts at the model, and reports each to its guard."""

    def __init__(self, states: StateKeeper, metrics: Metrics) -> None:
        self._states = states
        self._metrics = metrics

    async def run(
        self, plan: Plan, guard: Guard, rung: ModelRung, decision: Decision, *, from_state: bool
    ) -> RecommendationList:
        """Encodes what is missing of the history, decodes a list, and fills it up to k items.

        Args:
            plan: The request.
            guard: Of what answers it.
            rung: The width to decode at.
            decision: The guard's decision that allowed the attempt. It is observed once, by the first attempt.
            from_state: False for the second attempt, which does not trust the stored state.

        Raises:
            StateStale: More history must be encoded than fits the deadline; it is encoded in the background.
            ModelAttemptFailed: The attempt failed for another reason.
        """
        began, outcome = plan.deadline.clock(), Outcome.UNUSED
        deadline = plan.deadline.keeping(guard.reserve_s(plan.deadline.remaining()))
        try:
            h = await self._states.bring_up_to_date(
                plan.profile,
                plan.history,
                deadline,
                fits=lambda events: _encoding_fits(plan, guard, rung, events, deadline),
                from_state=from_state,
            )
            job = _decode_job(plan, rung, h)
            self._states.cache.measure(plan.profile)
            listed = await plan.model.decoder.submit(job, deadline)
            outcome = Outcome.OK
        except StateStale as stale:
            outcome = Outcome.LATE if stale.tried else Outcome.UNUSED
            raise
        except FilterNotReady:
            raise
        except Overloaded:
            outcome = Outcome.WAITED
            raise
        except DeadlineExceeded:
            outcome = Outcome.LATE
            raise
        except ModelError:
            outcome = Outcome.FAILED
            raise
        except ModelAttemptFailed:
            raise
        except Exception as error:
            outcome = Outcome.FAILED
            log.error("attempt_broke", request_id=plan.context.request_id, **logs.where(error))
            raise ModelError(type(error).__name__) from error
        finally:
            # A second attempt belongs to the same decision, which the first one has already reported.
            if from_state and guard.observe(outcome, plan.deadline.clock() - began, decision):
                self._metrics.attempted(outcome)
        scorers = listed.scorers or plan.model.ranker.used(plan.group())
        items, scores, draw = _known(listed, plan.model)
        listing = RecommendationList(items, scores, listed.source, scorers, listed.candidates, draw)
        if len(listing.items) < plan.request.k:
            listing = plan.model.fallback.fill(listing, plan.request.k, plan.limits)
        return listing


def _encoding_fits(plan: Plan, guard: Guard, rung: ModelRung, events: int, deadline: Deadline) -> bool:
    """Whether this many events can be encoded before the list is decoded.

    The guard has already decided that decoding alone fits. If it no longer does, the encoding is not to blame.
    """
    decoding_s = plan.forecast(rung).seconds
    if not events or not guard.fits(decoding_s, deadline):
        return True
    return guard.fits(plan.model.encoder.forecast(encode_key(events)).seconds + decoding_s, deadline)


def _decode_job(plan: Plan, rung: ModelRung, h: npt.NDArray[np.float32]) -> DecodeJob:
    filter_id = plan.filtered.id
    if filter_id is None:
        raise FilterNotReady("the engine does not hold the filter")
    request = ListRequest(
        context=plan.model.vocabulary.context.encode(plan.decoder_context()),
        gap_ms=plan.gap_ms(),
        decoding=plan.decoding,
        k=plan.request.k,
        filter_id=filter_id,
        excluded=plan.limits.excluded,
        seed=plan.seed(),
        width=plan.width(rung) if rung == "narrow" else None,
        signals=plan.signals(),
        group=plan.group(),
        candidates=plan.request.explain,
    )
    return DecodeJob(h=h, request=request)


def _known(
    listed: DecodedList, model: ServedModel
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Draw | None]:
    """Items, scores and draw of a list, without items that were added to the catalogue after the request arrived."""
    known = listed.items < len(model.catalogue.item_ids)
    if known.all():
        return listed.items, listed.scores, listed.draw
    # What is left was drawn by another law: the items that are gone took part.
    draw = None if listed.draw is None else replace(listed.draw, log_propensities=None)
    return listed.items[known], listed.scores[known], draw
