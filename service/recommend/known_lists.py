"""Lists of requests that were made before. A request whose list is known asks neither guard nor model for it."""

from __future__ import annotations

from service.answers.kept_lists import KeptList, KeptLists, Question
from service.engine.fallback import RecommendationList
from service.guard.guard import Guard, Reason, Rung
from service.history.profile_cache import ProfileCache
from service.metrics.service_metrics import Metrics
from service.recommend.list_key import question_of
from service.recommend.request_plan import Plan
from service.recommend.ruled_list import RULES_FAILED


class KnownLists:
    """Finds the lists of requests, and keeps those that the model makes at full width."""

    def __init__(self, kept: KeptLists, profiles: ProfileCache, metrics: Metrics) -> None:
        self._kept, self._profiles = kept, profiles
        self._counts = {outcome: metrics.kept_lists.labels(outcome) for outcome in ("hit", "miss", "never")}

    def find(self, plan: Plan, guard: Guard, *, may_be_kept: bool) -> tuple[Question | None, KeptList | None]:
        """Returns what the list of a request is found by, and the list if it is known.

        Args:
            plan: The request.
            guard: Of what answers it.
            may_be_kept: Whether it asks for what the model makes, of the history as it is stored.
        """
        if not self._kept.on:
            return None, None
        question = question_of(plan) if may_be_kept and guard.mode != "fallback" else None
        found = None if question is None else self._kept.get(question)
        self._counts["never" if question is None else "miss" if found is None else "hit"].inc()
        if found is not None:
            plan.context.facts["kept"] = True
        return question, found

    def keep(
        self, plan: Plan, question: Question | None, listing: RecommendationList, rung: Rung, reason: Reason | None,
        took_s: float,
    ) -> None:  # fmt: skip
        """Keeps a new list, unless it is degraded, its rules failed, or its subject is erased or has another log now.

        Args:
            plan: The request.
            question: From `find`.
            listing: The list.
            rung: Where it was made.
            reason: Why not on a higher rung.
            took_s: Seconds that it took to make.
        """
        if question is None or rung != "full" or reason is not None or RULES_FAILED in plan.context.facts:
            return
        # What is in memory of a subject goes with an erasure and with a new event, so this does not outlive it.
        subject = question.subject
        if subject is None or self._profiles.get(subject, plan.model) is plan.profile:
            self._kept.put(question, KeptList(listing, took_s))
