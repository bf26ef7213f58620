"""The shapes of the answers, for the OpenAPI document and for the tests that hold the answers to it.

Answers are built as plain dictionaries and written by orjson: nothing is validated twice on the way out.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.guard.guard import Reason, Rung
from service.policies.policies import DecodingSpec, Policies


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fault(Answer):
    loc: list[str | int] = Field(description="Keys and indices that lead to the fault.")
    message: str
    type: str
    index: int | None = Field(None, description="Index of the bad event.")


class Problem(Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] | None = None


class RankedItem(Answer):
    item_id: str
    rank: int
    score: float = Field(description="Comparable within one answer only.")
    title: str | None


class RecommendAnswer(Answer):
    request_id: str
    user_id: str | None
    items: list[RankedItem]
    source: Literal["gpt4rec", "item_cf", "popular"]
    rung: Rung
    degraded: bool = Field(description="Whether a rung below `full` answered.")
    reason: Reason | None
    segment: str
    strategy: Literal["beam", "top_p", "temperature", "greedy"]
    model_version: str
    budget_ms: float
    latency_ms: float


class EventsAnswer(Answer):
    accepted: int
    duplicates: int
    unknown_items: list[str]
    request_id: str


class MergeAnswer(Answer):
    merged: int = Field(description="Events that were new to the user.")
    request_id: str


class SimilarAnswer(Answer):
    item_id: str
    items: list[RankedItem]
    source: Literal["item_cf"]
    model_version: str
    request_id: str


class FoundItem(Answer):
    item_id: str
    title: str | None
    category: list[str]


class FoundAnswer(Answer):
    items: list[FoundItem]
    request_id: str


class PlaygroundSegment(DecodingSpec):
    name: str


class CategoryCount(Answer):
    name: str
    items: int


class TrainedOn(Answer):
    name: str
    users: int | None
    events: int | None


class PlaygroundAnswer(Answer):
    request_id: str
    model_version: str
    items: int = Field(description="Items in the catalogue.")
    trained_on: TrainedOn | None
    explains: bool = Field(description="Whether the artefact can say which events carried the attention.")
    event_types: list[str] = Field(description="Those that the model has seen, the most frequent first.")
    times: bool = Field(description="Whether the model reads the times of events.")
    segments: list[PlaygroundSegment]
    categories: list[CategoryCount]
    scenes: list[str]
    features: dict[str, list[str]]
    links: dict[str, str] = Field(description="Other pages that this service has, by name.")
    budget_ms: float
    budget_max_ms: float


class WhyAnswer(Answer):
    request_id: str
    weights: list[float] = Field(description="Share of every event, in the order given.")
    start: float = Field(description="Share of the beginning of the history.")
    method: Literal["attention_rollout"]
    model_version: str


class HistoryEvent(Answer):
    item_id: str
    type: str
    timestamp_ms: int
    event_id: str


class UserAnswer(Answer):
    user_id: str
    history: list[HistoryEvent] = Field(description="Newest last.")
    segment: str
    version: str
    request_id: str


class EraseAnswer(Answer):
    user_id: str
    deleted: int = Field(description="Redis keys deleted.")
    request_id: str


class HealthAnswer(Answer):
    request_id: str
    status: Literal["ok"]
    engine: bool = Field(description="Whether the engine thread lives and is not stuck.")


class ReadyAnswer(Answer):
    request_id: str
    status: Literal["ready", "degraded", "not_ready"]
    checks: dict[str, bool]


class VersionAnswer(Answer):
    request_id: str
    version: str
    git_commit: str
    model_version: str
    artifact: str | None


class FallbackAnswer(Answer):
    request_id: str
    mode: Literal["auto", "fallback", "model"]
    reason: str | None
    actor: str | None
    expires_at: str | None
    changed_at: str | None
    version: int = Field(description="Counts the changes.")
    shared: bool = Field(
        description="Whether Redis has this mode. If not, it holds on this replica only, until Redis is back."
    )
    breaker: Literal["closed", "open", "half_open"]
    budgets: dict[str, Any]


class Choice(Answer):
    """The last change that an operator made."""

    actor: str | None
    reason: str | None
    changed_at: str | None
    version: int = Field(description="Counts the changes; 0 where nobody made one.")
    shared: bool = Field(
        description="Whether Redis has it. If not, it holds on this replica only, until Redis is back."
    )


class PoliciesAnswer(Policies, Choice):
    request_id: str
    origin: Literal["file", "operator"] = Field(description="Whose policies are in force.")


class ModelVersion(Answer):
    version: str
    created_at: str | None
    metrics: dict[str, float] = Field(description="Of the evaluation before the export.")
    active: bool
    available: bool = Field(description="Whether it looks as if it could be served here.")
    fault: str | None = Field(description="Why it cannot be served here.")


class Replica(Answer):
    name: str
    active: str = Field(description="The version that it serves.")
    fault: str | None = Field(description="Why that is not the one that was chosen.")


class ModelsAnswer(Choice):
    request_id: str
    active: str = Field(description="The version that this replica serves.")
    previous: str | None = Field(description="What a rollback goes back to.")
    chosen: str | None = Field(description="What operators chose; null: what the deployment names is served.")
    loading: str | None = Field(description="What this replica is about to serve.")
    fault: str | None = Field(description="Why this replica does not serve what was chosen.")
    models: list[ModelVersion]
    replicas: list[Replica] | None = Field(description="Every replica's own word; null while Redis is away.")


class Latency(Answer):
    answers: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class CacheFigures(Answer):
    hit_share: float | None = Field(description="Histories found in memory, of those asked for.")
    outcomes: dict[str, int]


class TrafficFigures(Answer):
    window_s: int
    answers: int
    answers_per_s: float
    late: int = Field(description="Answers that left after their deadline.")
    failed: int = Field(description="Requests answered by an error of the service.")
    events_per_s: float
    latency: dict[str, Latency] = Field(description="By source, and of `all`.")
    source: dict[str, int]
    rung: dict[str, int]
    reason: dict[str, int]
    cache: CacheFigures


class StatusAnswer(Answer):
    request_id: str
    at: str
    service: dict[str, Any]
    mode: dict[str, Any] = Field(description="As in /ops/fallback, and `expires_in_s`.")
    redis: bool = Field(description="Whether Redis answers.")
    budget_ms: float
    breaker: dict[str, Any] = Field(description="The worst of the workers'; `model_share` is of all traffic.")
    burn_rate: dict[str, dict[str, float]] = Field(description="By objective and window, of the worst worker.")
    queue: dict[str, float]
    traffic: TrafficFigures
    workers: list[dict[str, Any]]
    series: list[dict[str, Any]] = Field(description="Second by second, oldest first.")


class AuditAnswer(Answer):
    request_id: str
    entries: list[dict[str, Any]] = Field(description="Newest first.")
