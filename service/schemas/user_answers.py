"""Schemas of the answers about users and sessions: their events, features, merge and erasure."""

from __future__ import annotations

from pydantic import Field

from service.schemas.answer import Answer, Warned


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
