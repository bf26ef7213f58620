"""Schemas of the answers to operators; see `service.schemas.answer`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from service.policies.policies import Policies
from service.schemas.answer import Answer


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
    repeats: bool = Field(description="Whether lists hold seen items where a request leaves `exclude_seen` out.")
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


class Comparison(Answer):
    """What is known of an arm beside the first one."""

    lift: float | None = Field(description="Relative difference of the click-through; null where nothing is known yet.")
    low: float | None = Field(description="Lower end of its 95 % interval, which holds whenever it is looked at.")
    high: float | None
    p: float = Field(description="Always-valid p: it may be looked at as often as anybody likes.")
    power: float = Field(description="Probability that a difference of `effect` would have been found by now.")
    effect: float
    least_effect: float | None = Field(description="The drop that would have been found by now four times out of five.")


class ArmBreaker(Answer):
    """The breaker and the error budgets of what answers an arm, in the process that answers this request."""

    state: Literal["closed", "open", "half_open"]
    model_share: float = Field(description="The model's share of the traffic of the arm.")
    cause: str | None = Field(description="Why it is not all of it.")
    burn_rate: dict[str, dict[str, float]] | None = Field(
        description="How fast the budgets of its model attempts burn, by objective and window."
    )


class ArmReport(Answer):
    """What an arm is and has earned."""

    name: str
    share: float
    model: str | None
    policies: list[str] | None = Field(description="Names of its segments; null for the policies of everybody.")
    ranker: str | None
    answers: int = Field(description="Lists, as the replicas counted them.")
    late: int
    failed: int
    below: int
    subjects: int = Field(description="Users, as the log was joined.")
    lists: int
    clicked: int
    click_through: float | None
    comparison: Comparison | None = Field(description="Beside the first arm; null for that.")
    breaker: ArmBreaker | None = Field(description="Null for an experiment that has ended.")


class Times(Answer):
    """How long lists took, in milliseconds."""

    mean: float
    p50: float
    p95: float


class ShadowReport(Answer):
    """What the candidate of a shadow would have shown, beside what was shown."""

    requests: dict[str, int] = Field(
        description="Requests of its share by outcome: compared, dropped (too many waited), busy (no spare time), "
        "skipped (the answer did not come from the rung full, or the candidate cannot answer it), failed."
    )
    overlap: float | None = Field(description="Mean share of the items that both lists have, of k.")
    same_first: float | None = Field(description="Share of the lists with the same first item.")
    same_list: float | None = Field(description="Share of the lists that are the same.")
    shown_ms: Times | None = Field(description="From the plan of a request to its list, waiting included.")
    candidate_ms: Times | None = Field(description="The same of the candidate, on a thread of low priority.")


class ExperimentReport(Answer):
    """What an experiment has found so far."""

    name: str
    kind: Literal["split", "shadow"]
    layer: str
    run: str
    state: Literal["running", "stopped", "returned", "promoted"]
    cause: str | None
    share: float = Field(description="Share of the subjects of its layer; of the requests for a shadow.")
    step: int = Field(description="From 1.")
    steps: list[float]
    portion: float = Field(description="Portion of the arms that is let in.")
    started_at: str | None
    ended_at: str | None
    counted: bool = Field(description="False while Redis is away: then all counts are 0.")
    arms: list[ArmReport]
    shares_p: float = Field(description="Always-valid p of the shares of the arms.")
    shares_mismatch: bool = Field(description="Whether subjects did not fall into the arms as the shares say.")
    shadow: ShadowReport | None = Field(description="Null unless it is a shadow.")


class ExperimentsAnswer(Choice):
    """All experiments, and what is held for them."""

    request_id: str
    experiments: list[ExperimentReport]
    holdout: dict[str, Any] | None
    memory: dict[str, Any] = Field(description="Models held on this replica beside the one in service, and the limit.")


class ExperimentAnswer(ExperimentReport):
    """One experiment."""

    request_id: str


class PlannedAnswer(Answer):
    """What a change would do."""

    request_id: str
    would: list[str] = Field(description="What it would do, in sentences.")
    models: list[dict[str, Any]] = Field(description="The models it needs: whether they are here, and their size.")
    memory: dict[str, Any]
    refused: list[str] = Field(description="Why it would be refused on this replica.")


class OutcomesOfGroup(Answer):
    """What the lists of a group earned."""

    group: str
    lists: int
    viewed: int = Field(description="Lists that somebody saw, as far as clients say so.")
    click_through: float | None = Field(description="Share of the lists, or of the positions, with a click.")
    conversions_per_thousand: float | None = Field(description="Items bought per thousand lists.")
    value_per_thousand: float | None = Field(description="Value of the purchases per thousand lists.")


class SpacesAnswer(Answer):
    """The spaces that a token may operate."""

    request_id: str
    space: str = Field(description="The space that the request means.")
    spaces: list[str] = Field(description="Every space that the token may operate, the default one first.")


class OutcomesAnswer(Answer):
    """What the lists of yesterday and today earned, as the sink counts it."""

    request_id: str
    days: list[str] = Field(description="The days (UTC) that there are figures of.")
    groups: dict[str, list[OutcomesOfGroup]] = Field(
        description="By dimension: `all`, `model`, `segment`, `strategy`, `rung`, `arm`, `position`."
    )
    fault: str | None = Field(description="Why the figures cannot be read, so that there are none; null if they can.")


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
    segment: dict[str, int]
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
    links: dict[str, str] = Field(description="Addresses of pages outside the service, by name, as settings give them.")
    budget_ms: float
    breaker: dict[str, Any] = Field(
        description="The breaker of the worst worker; `model_share` is the share of all traffic."
    )
    burn_rate: dict[str, dict[str, float]] = Field(
        description="Burn rate by objective and window, of the worst worker."
    )
    queue: dict[str, float]
    traffic: TrafficFigures
    watch: dict[str, Any] = Field(
        description="What lists and traffic are like in this hour: the state of the model's `baseline`, `figures`, the "
        "`drift` of each statistic, and what was `over` its threshold in the last hour and day; empty if it is off."
    )
    workers: list[dict[str, Any]]
    series: list[dict[str, Any]] = Field(description="Figures per second, oldest first.")


class SegmentMove(Answer):
    """Lists by their segment before and after a change."""

    before: str
    after: str
    lists: int


class ChangedList(Answer):
    """A list that would change."""

    segment: list[str] = Field(description="Its segment before and after.")
    strategy: list[str] = Field(description="Its strategy before and after.")
    goes: list[str] = Field(description="Titles, or ids, of the items that would be missing.")
    comes: list[str] = Field(description="Titles, or ids, of the items that would come.")
    first: list[list[str]] = Field(description="The first item before and after.")


class PoliciesPreview(Answer):
    """What policies would change, tried on the requests that this replica answered last."""

    request_id: str
    tried: int = Field(description="Requests that both policies could plan.")
    left_out: int = Field(description="Requests that could not be tried, or not in time.")
    changed: int = Field(description="Lists that would change.")
    first_changed: int = Field(description="Lists whose first item would change.")
    common_share: float | None = Field(description="Mean share of the items that a changed list would keep.")
    segments: list[SegmentMove]
    examples: list[ChangedList]
    would: list[str] = Field(description="The same in sentences.")
    refused: list[str] = Field(description="Why the change would be refused; empty: policies that are read are taken.")


class AuditAnswer(Answer):
    """The audit log."""

    request_id: str
    entries: list[dict[str, Any]] = Field(description="Newest first; `text` is the change in a sentence.")
    actors: list[str] = Field(description="Who made the changes that were gone through.")
    actions: list[str] = Field(description="What kinds of things they changed.")
