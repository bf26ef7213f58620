"""All that is known of an answer before it is computed, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from service.batching.run_costs import Forecast
from service.common.deadline import Deadline
from service.common.request_context import RequestContext
from service.engine.decoding import Decoding
from service.engine.fallback import Constraints, RecommendationList
from service.engine.jobs import decode_key
from service.guard.guard import ModelRung, Reason, Rung
from service.history.history import History
from service.history.profile import Profile
from service.lifecycle.served_model import ServedModel, ranked_items
from service.schemas.requests import RecommendRequest

_GREEDY = Decoding("greedy")


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, read and understood. `past` is what the answer is about, the profile's own or one with the
    request's events in it; `limits` is what it may hold."""

    request: RecommendRequest
    call: RequestContext
    model: ServedModel
    profile: Profile
    history: History
    segment: str
    decoding: Decoding
    limits: Constraints
    budget_ms: float
    deadline: Deadline
    now_ms: int

    def width(self, rung: ModelRung) -> int:
        """Nodes kept at every level."""
        return (_GREEDY if rung == "narrow" else self.decoding).width(self.request.k)

    def forecast(self, rung: ModelRung) -> Forecast:
        """When the list would be decoded, if the decoder were asked now."""
        return self.model.decoder.forecast(decode_key(self.width(rung), self.decoding, self.request.k))

    def context(self) -> Mapping[str, Any]:
        """Slots of the decoder's context: the scene and the control codes win over features of the same name."""
        request = self.request
        scene = {} if request.scene is None else {"scene": request.scene}
        return {**(request.features or {}), **(request.context or {}), **scene}

    def gap_ms(self) -> int:
        """Time since the last event, as the decoder takes it."""
        vocabulary = self.model.vocabulary
        return vocabulary.context.gap(self.history.last_ms if vocabulary.has_time else None, self.now_ms)

    def seed(self) -> int:
        """The caller's seed; else, for a sampled list, one that another request will not have."""
        if self.request.seed is not None:
            return self.request.seed
        if not self.decoding.sampled:
            return 0
        return int.from_bytes(blake2b(self.call.request_id.encode(), digest_size=8).digest(), "big") >> 1

    def answer(self, listing: RecommendationList, rung: Rung, reason: Reason | None) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "request_id": self.call.request_id,
            "user_id": self.request.user_id,
            "items": ranked_items(self.model.catalogue, listing.items, listing.scores),
            "source": listing.source,
            "rung": rung,
            "degraded": rung != "full",
            "reason": reason,
            "segment": self.segment,
            "strategy": self.decoding.strategy,
            "model_version": self.model.version,
            "budget_ms": self.budget_ms,
            "latency_ms": round(self.call.elapsed_ms(), 3),
        }
