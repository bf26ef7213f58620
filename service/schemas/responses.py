"""Schemas of the answers, for the OpenAPI document and for the tests that check answers against it.

Answers are built as plain dictionaries and serialised by orjson; they are not validated at run time.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.engine.decoding import Strategy
from service.engine.fallback import Source
from service.engine.rule_report import RuleResult
from service.guard.guard import Reason, Rung
from service.policies.policies import DecodingSpec


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


class CauseEvent(Answer):
    """The event of the history that carried most of an item."""

    item_id: str
    title: str | None
    timestamp_ms: int = Field(description="Its time; of an item seen before the kept history, that of its last event.")
    share: float = Field(
        description="Its share: of what all events contributed through the signals where `exact` is true, else of the "
        "network's attention."
    )
    exact: bool = Field(
        description="Whether the share is computed from the score itself. It is false for the network, whose attention "
        "shows what it read, not what the list would be without an event."
    )
    by: str = Field(description="The signal through which it carried most; `attention` or `gradient` for the network.")


class ReadEvent(Answer):
    """The event of the history of which most was read from memory."""

    item_id: str
    title: str | None
    timestamp_ms: int
    share: float = Field(description="Its share in what was read.")


class ReadSession(Answer):
    """The session of which most was read from memory."""

    share: float = Field(description="The share of its events in what was read.")
    events: int = Field(description="How many of its events the history still has.")
    from_ms: int = Field(description="Time of the first of them.")
    to_ms: int = Field(description="Time of the last of them.")


class ReadMemory(Answer):
    """What the network read from its memory for the state that the list was decoded from."""

    event: ReadEvent | None = Field(description="The event of which most was read; null if none was.")
    session: ReadSession | None = Field(description="The session of which most was read; null without sessions.")
    slots: list[float] | None = Field(description="Share of each slot of a memory bank; null without slots.")
    horizons: dict[str, float] | None = Field(
        description="Weight of the means over `hours`, `days` and a `month`; null without horizons."
    )
    earlier: float = Field(
        description="The rest of what was read: of events that the history no longer has, or beyond the newest 512, "
        "and of what the memory holds before any event."
    )


class Because(Answer):
    """Why an item is in the list."""

    contributions: dict[str, float] = Field(
        description="What each signal contributed to the score: its weight times the difference between the item's "
        "value and the mean of the candidates, so the contributions of two items differ as their scores do. In a "
        "list of the model the user's signals count for the 2,048 listable items of which they say most (128 in a "
        "catalogue above 100,000 items); to any other item they contribute 0 and name no event. For a list by "
        "popularity: the share less the mean share. Empty for an item that only fills the list up."
    )
    event: CauseEvent | None = Field(description="The event that carried most; null if none speaks for the item.")
    memory: ReadMemory | None = Field(
        None,
        description="Only where the network carried most and has a memory beside its window (`memory_bank`, "
        "`hierarchy`): what it read from that. It is the same for all items of a list.",
    )


_ASKED = "Only where `fields` names it."


class RankedItem(Answer):
    """An item of a list."""

    item_id: str
    rank: int
    score: float = Field(
        description="Comparable only within one answer. What it is depends on `source`. gpt4rec: the sum of all "
        "weighted signals, in which path and dense score are log-probabilities; a sampled list is in the order of its "
        "draw, not of its scores. item_cf: the same sum without the network's, or the sum of similarities where "
        "item-CF alone ranks. repeat: the events of the item, newer ones weighing more. popular: the share of all "
        "events. Items that fill a list up score no higher than those before them."
    )
    title: str | None = Field(None, description="Left out where `fields` does not name it.")
    category: list[str] = Field([], description=f"Its category levels, top first, or its tags. {_ASKED}")
    paths: list[str] = Field([], description=f"Its category paths, such as `Fashion > Women > Shoes`. {_ASKED}")
    brand: str | None = Field(None, description=_ASKED)
    attributes: list[str] = Field([], description=_ASKED)
    price: float | None = Field(None, description=_ASKED)
    currency: str | None = Field(None, description=f"Three letters, as in ISO 4217. {_ASKED}")
    stock: int | None = Field(None, description=f"Pieces in stock, where that is known. {_ASKED}")
    image: str | None = Field(None, description=f"Address of its picture. {_ASKED}")
    url: str | None = Field(None, description=f"Address of its page. {_ASKED}")
    valid_from: str | None = Field(None, description=f"When it is listed from, in ISO 8601. {_ASKED}")
    valid_until: str | None = Field(None, description=f"When it is not listed any more, in ISO 8601. {_ASKED}")
    because: Because | None = Field(None, description="Only in answers to requests with `explain`.")


class RuleAnswer(Answer):
    """What became of a rule."""

    name: str
    result: RuleResult = Field(
        description="held: the list keeps it and would have without it. bit: it changed the list, which keeps it. "
        "not_kept: the list does not keep it."
    )


class RecommendAnswer(Answer):
    """A list of items, and how it was made."""

    request_id: str
    list_id: str = Field(
        description="Names this list, a ULID: send it back with the events that the list leads to. What is recorded of "
        "the list has the same id."
    )
    user_id: str | None
    items: list[RankedItem]
    source: Source
    scorers: list[str] = Field(
        description="The signals that ranked the list, which are those with a weight: `path` and `dense` of the "
        "network, `item_cf`, `transitions`, `content`, `popularity` and others. Empty if a filter allows nothing."
    )
    rung: Rung
    degraded: bool = Field(description="Whether the answer came from a rung below `full`.")
    reason: Reason | None
    warnings: list[str] = Field(
        description="What the caller must know about this answer, in sentences: above all, that the stored history "
        "could not be read, so that items seen before may be listed; and what in the request the model or the "
        "catalogue does not know. Empty if there is nothing."
    )
    rules: list[RuleAnswer] = Field(
        default=[], description="The rules that held for the list, highest precedence first; left out if none did."
    )
    segment: str
    strategy: Strategy | None = Field(description="How the model decoded the list; null if no model did.")
    model_version: str
    arms: dict[str, str] = Field(description="The arm of each experiment that the user is in; empty without one.")
    budget_ms: float
    latency_ms: float
    cursor: str | None = Field(
        None,
        description="Gets the next page. Only in answers to requests with `page` or `cursor`; null where the list "
        "ends, or cannot be continued, which `warnings` says.",
    )


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
    repeats: bool = Field(
        description="Whether lists hold items of the history where a request leaves `exclude_seen` out."
    )
    event_types: list[str] = Field(description="Event types in the training data, most frequent first.")
    times: bool = Field(description="Whether the model uses the times of events.")
    segments: list[PlaygroundSegment]
    rules: list[str] = Field(description="Names of the rules that hold for all lists, or for those of a segment.")
    categories: list[CategoryCount]
    scenes: list[str]
    features: dict[str, list[str]]
    codes: dict[str, list[str]] = Field(description="Control codes by slot: what a request may ask for in `context`.")
    links: dict[str, str] = Field(description="Other pages of this service, by name.")
    budget_ms: float
    budget_max_ms: float
    space: str = Field(description="The space that the request means.")
    spaces: list[str] = Field(description="Every space that the caller may choose.")


class MemoryShares(Answer):
    """What the network read from the memory beside its window, by event in the order of the request."""

    events: list[float] = Field(
        description="Share of each event. The rest up to 1 is what the memory held before these events."
    )
    sessions: list[int | None] | None = Field(
        description="Number of each event's session, null for an event given before; null without sessions."
    )
    slots: list[float] | None = Field(description="Share of each slot of a memory bank; null without slots.")
    horizons: dict[str, float] | None = Field(
        description="Weight of the means over `hours`, `days` and a `month`; null without horizons."
    )


class Shares(Answer):
    """The share of each event in the state that a list is decoded from."""

    weights: list[float] = Field(description="Share of each event, in the order of the request.")
    start: float = Field(description="Share of the start token.")
    earlier: float = Field(
        description="Share of all events together that come before those with a share, if the network remembers them."
    )
    method: Literal["attention_rollout", "attention", "gradient"]
    memory: MemoryShares | None = Field(description="What was read from memory; null if the network has none to show.")
    model_version: str
    warnings: Warned


class WhyAnswer(Shares):
    """The share of each event in the state that a list is decoded from."""

    request_id: str


class HistoryEvent(Answer):
    """A stored event."""

    item_id: str | None = Field(description="The item; null for a search without one.")
    type: str
    timestamp_ms: int
    event_id: str
    query: str | None = Field(description="Text of a search without an item; null for all other events.")


class UserAnswer(Answer):
    """What is stored for a user."""

    user_id: str
    history: list[HistoryEvent] = Field(description="Newest last.")
    seen_before: list[str] = Field(
        description="Items of events that the history no longer keeps; they stay out of lists too."
    )
    segment: str
    version: str
    features: dict[str, str | int | float | bool] = Field(description="Stored features; empty without any.")
    request_id: str


class FeaturesAnswer(Answer):
    """The stored features of a user or session."""

    user_id: str | None = Field(description="The user; null for a session.")
    session_id: str | None = Field(description="The session; null for a user.")
    features: dict[str, str | int | float | bool]
    warnings: Warned
    request_id: str


class FeaturesDeletedAnswer(Answer):
    """What became of stored features."""

    user_id: str | None = Field(description="The user; null for a session.")
    session_id: str | None = Field(description="The session; null for a user.")
    deleted: bool = Field(description="Whether any were stored.")
    request_id: str


class EraseAnswer(Answer):
    """What an erasure deleted."""

    user_id: str
    deleted: int = Field(description="Number of Redis keys deleted.")
    entries: int = Field(description="Number of entries deleted from the streams of lists and events.")
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
    space: str | None = Field(None, description="The space that the request means, where there are several.")
