"""Schemas of the answers, for the OpenAPI document and for the tests that check answers against it.

Answers are built as plain dictionaries and serialised by orjson; they are not validated at run time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.engine.decoding import Strategy
from service.engine.fallback import Source
from service.guard.guard import Reason, Rung
from service.policies.policies import DecodingSpec, Policies


class Answer(BaseModel):
    """Base of all answers: unknown fields are rejected, so that tests notice them."""

    model_config = ConfigDict(extra="forbid")


class Fault(Answer):
    """One fault of a request."""

    loc: list[str | int] = Field(description="Path of keys and indices to the faulty value.")
    message: str
    type: str
    index: int | None = Field(None, description="Index of the faulty event in the batch.")


class Problem(Answer):
    """An error, as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] | None = None


Warned = Annotated[
    list[str],
    Field(
        description="What in the request had no effect, or not the one that its sender may expect, in sentences. Empty "
        "if there is nothing."
    ),
]


class RankedItem(Answer):
    """An item of a list."""

    item_id: str
    rank: int
    score: float = Field(description="Comparable only within one answer.")
    title: str | None


class RecommendAnswer(Answer):
    """A list of items, and how it was made."""

    request_id: str
    user_id: str | None
    items: list[RankedItem]
    source: Source
    rung: Rung
    degraded: bool = Field(description="Whether the answer came from a rung below `full`.")
    reason: Reason | None
    warnings: list[str] = Field(
        description="What the caller must know about this answer, in sentences: above all, that the stored history "
        "could not be read, so that items seen before may be listed; and what in the request the model or the "
        "catalogue does not know. Empty if there is nothing."
    )
    segment: str
    strategy: Strategy | None = Field(description="How the model decoded the list; null if no model did.")
    model_version: str
    budget_ms: float
    latency_ms: float


class EventsAnswer(Answer):
    """What became of a batch of events."""

    accepted: int = Field(description="Number of events that are stored now.")
    duplicates: int = Field(description="Number of events that were stored before, by their `event_id`.")
    unknown_items: list[str]
    warnings: Warned
    request_id: str


class MergeAnswer(Answer):
    """What became of a merge."""

    merged: int = Field(description="Number of events that were new to the user.")
    request_id: str


class SimilarAnswer(Answer):
    """The neighbours of an item."""

    item_id: str
    items: list[RankedItem]
    source: Literal["item_cf"]
    model_version: str
    request_id: str


class FoundItem(Answer):
    """An item of the catalogue."""

    item_id: str
    title: str | None
    category: list[str]


class FoundAnswer(Answer):
    """Items of the catalogue."""

    items: list[FoundItem]
    warnings: Warned
    request_id: str


class PlaygroundSegment(DecodingSpec):
    """A segment and its decoding."""

    name: str


class CategoryCount(Answer):
    """A category, and how many items it has."""

    name: str
    items: int


class TrainedOn(Answer):
    """The data set that the model was trained on."""

    name: str
    users: int | None
    events: int | None


class PlaygroundAnswer(Answer):
    """What the playground offers to choose from."""

    request_id: str
    model_version: str
    items: int = Field(description="Number of items in the catalogue.")
    trained_on: TrainedOn | None
    explains: bool = Field(description="Whether the artefact has an explainer: `/playground/why` answers only then.")
    event_types: list[str] = Field(description="Event types in the training data, most frequent first.")
    times: bool = Field(description="Whether the model uses the times of events.")
    segments: list[PlaygroundSegment]
    categories: list[CategoryCount]
    scenes: list[str]
    features: dict[str, list[str]]
    links: dict[str, str] = Field(description="Other pages of this service, by name.")
    budget_ms: float
    budget_max_ms: float


class WhyAnswer(Answer):
    """The share of each event in the state that a list is decoded from."""

    request_id: str
    weights: list[float] = Field(description="Share of each event, in the order of the request.")
    start: float = Field(description="Share of the start token.")
    method: Literal["attention_rollout"]
    model_version: str
    warnings: Warned


class HistoryEvent(Answer):
    """A stored event."""

    item_id: str
    type: str
    timestamp_ms: int
    event_id: str


class UserAnswer(Answer):
    """What is stored for a user."""

    user_id: str
    history: list[HistoryEvent] = Field(description="Newest last.")
    seen_before: list[str] = Field(
        description="Items of events that the history no longer keeps; they stay out of lists too."
    )
    segment: str
    version: str
    request_id: str


class EraseAnswer(Answer):
    """What an erasure deleted."""

    user_id: str
    deleted: int = Field(description="Number of Redis keys deleted.")
    request_id: str


class IndexAnswer(Answer):
    """What is here."""

    request_id: str
    name: str
    version: str
    description: str
    links: dict[str, str] = Field(description="Paths by name; those of pages that are switched off are left out.")


class HealthAnswer(Answer):
    """Liveness of the process."""

    request_id: str
    status: Literal["ok"]
    engine: bool = Field(description="Whether the engine threads are alive and not stuck.")


class ReadyAnswer(Answer):
    """Readiness of the process, check by check."""

    request_id: str
    status: Literal["ready", "degraded", "not_ready"]
    checks: dict[str, bool] = Field(description="`redis` is true if a write and a script work.")
    redis_cause: str | None = Field(description="Why Redis cannot be used; null if it can.")


class VersionAnswer(Answer):
    """Versions of the code and of the model."""

    request_id: str
    version: str
    git_commit: str
    model_version: str
    artifact: str | None


class FallbackAnswer(Answer):
    """The mode in force, and the state of the breaker."""

    request_id: str
    mode: Literal["auto", "fallback", "model"]
    reason: str | None
    actor: str | None
    expires_at: str | None
    changed_at: str | None
    version: int = Field(description="Number of changes so far.")
    shared: bool = Field(
        description="Whether Redis has this mode. If not, it applies to this replica only, until Redis is back."
    )
    breaker: Literal["closed", "open", "half_open"]
    budgets: dict[str, Any]


class Choice(Answer):
    """The last change that an operator made."""

    actor: str | None
    reason: str | None
    changed_at: str | None
    version: int = Field(description="Number of changes so far; 0 if there were none.")
    shared: bool = Field(
        description="Whether Redis has the change. If not, it applies to this replica only, until Redis is back."
    )


class PoliciesAnswer(Policies, Choice):
    """The policies in force, and the last change to them."""

    request_id: str
    origin: Literal["file", "operator"] = Field(
        description="Whether the policies in force come from the policies file or from an operator."
    )


class ModelVersion(Answer):
    """A model version in the models folder."""

    version: str
    created_at: str | None
    metrics: dict[str, float] = Field(description="Metrics of the evaluation before the export.")
    active: bool
    available: bool = Field(
        description="Whether this replica can serve the version, as far as is known without loading it."
    )
    fault: str | None = Field(description="Why this replica cannot serve the version.")


class Replica(Answer):
    """A replica, and the model version that it serves."""

    name: str
    active: str = Field(description="The version that the replica serves.")
    fault: str | None = Field(description="Why the replica does not serve the chosen version.")


class ModelsAnswer(Choice):
    """The model versions of the deployment, and which of them is served."""

    request_id: str
    active: str = Field(description="The version that this replica serves.")
    previous: str | None = Field(description="The version that a rollback returns to.")
    chosen: str | None = Field(
        description="The version that operators chose; null if none was chosen, and the deployment's is served."
    )
    loading: str | None = Field(description="The version that this replica is loading.")
    fault: str | None = Field(description="Why this replica does not serve the chosen version.")
    models: list[ModelVersion]
    replicas: list[Replica] | None = Field(description="What each replica reports; null while Redis is not available.")


class Latency(Answer):
    """Latency of the answers in the window."""

    answers: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class CacheFigures(Answer):
    """Hits and misses of the state cache in the window."""

    hit_share: float | None = Field(description="Share of the histories asked for that were in memory.")
    outcomes: dict[str, int]


class TrafficFigures(Answer):
    """Traffic in the window."""

    window_s: int
    answers: int
    answers_per_s: float
    late: int = Field(description="Answers sent after their deadline.")
    failed: int = Field(description="Requests answered with a server error.")
    events_per_s: float
    latency: dict[str, Latency] = Field(description="By source, and for `all` sources.")
    source: dict[str, int]
    rung: dict[str, int]
    reason: dict[str, int]
    cache: CacheFigures


class StatusAnswer(Answer):
    """The figures of the console."""

    request_id: str
    at: str
    service: dict[str, Any]
    mode: dict[str, Any] = Field(description="As in /ops/fallback, plus `expires_in_s`.")
    redis: bool = Field(description="Whether a write and a script work in Redis, for every worker.")
    redis_cause: str | None = Field(description="Why not, of the first worker that cannot use Redis; null if all can.")
    redis_meaning: str | None = Field(description="The cause in words.")
    files_hang: list[str] = Field(description="Followed files that a worker cannot read, because their disk hangs.")
    budget_ms: float
    breaker: dict[str, Any] = Field(
        description="The breaker of the worst worker; `model_share` is the share of all traffic."
    )
    burn_rate: dict[str, dict[str, float]] = Field(
        description="Burn rate by objective and window, of the worst worker."
    )
    queue: dict[str, float]
    traffic: TrafficFigures
    workers: list[dict[str, Any]]
    series: list[dict[str, Any]] = Field(description="Figures per second, oldest first.")


class AuditAnswer(Answer):
    """The audit log."""

    request_id: str
    entries: list[dict[str, Any]] = Field(description="Newest first; `text` is the change in a sentence.")
