"""Schemas of the answers to the playground."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.policies.policies import DecodingSpec
from service.schemas.answer import Answer, Warned
from service.schemas.list_answers import RecommendAnswer


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


class ListsAnswer(Answer):
    """A list, or two beside each other, with what a page shows with them."""

    lists: list[RecommendAnswer] = Field(description="The list; behind it the one to compare it with, if asked for.")
    items: list[FoundItem] = Field(description="The items of the lists and of the events, as far as they are known.")
    why: Shares | None = Field(
        description="The share of each event in the first list; null if the model did not make it from these events "
        "alone, or if the artefact has no explainer."
    )
    request_id: str
