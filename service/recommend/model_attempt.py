"""One attempt to answer a request with the model, and what the guard learns from it."""

from __future__ import annotations

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
from service.engine.fallback import RecommendationList
from service.engine.jobs import encode_key
from service.guard.guard import Decision, Guard, ModelRung, Outcome
from service.history.state_keeper import StateKeeper
from service.metrics.service_metrics import Metrics
from service.recommend.model_list import decode_job, listing_of
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
            job = decode_job(plan, rung, h)
            self._states.cache.measure(plan.profile)
            listed = await plan.decode(job, deadline)
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
        return listing_of(plan, listed)


def _encoding_fits(plan: Plan, guard: Guard, rung: ModelRung, events: int, deadline: Deadline) -> bool:
    """Whether this many events can be encoded before the list is decoded.

    The guard has already decided that decoding alone fits. If it no longer does, the encoding is not to blame.
    """
    decoding_s = plan.forecast(rung).seconds
    if not events or not guard.fits(decoding_s, deadline):
        return True
    return guard.fits(plan.model.encoder.forecast(encode_key(events)).seconds + decoding_s, deadline)
