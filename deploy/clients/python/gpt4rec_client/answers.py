"""Answers of the service. Members that this release does not know are in `raw`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gpt4rec_client.errors import ClientError, problem
from gpt4rec_client.events import Event

Rung = Literal["full", "narrow", "item_cf", "popular"]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RankedItem:
    """An item of a list.

    Attributes:
        item_id: The item.
        rank: Its place, from 1.
        score: Comparable within one answer only; None in a local list.
        title: Its title, where the catalogue has one, and `fields` of the question names it or is left out.
        because: Why it is there, in answers to questions with `explain`.
        brand: Its brand, where `fields` names it; so are those below.
        price: Its price, in `currency`.
        currency: Three letters.
        image: Address of its picture.
        url: Address of its page.
        raw: The item as the service sent it, with every field that was asked for.
    """

    item_id: str
    rank: int
    score: float | None
    title: str | None
    because: Json | None = None
    brand: str | None = None
    price: float | None = None
    currency: str | None = None
    image: str | None = None
    url: str | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A list of items, and how it was made.

    Attributes:
        items: The items, best first.
        list_id: Names the list. Events that name it are attributed to it; None in a local list.
        source: What ranked it: `gpt4rec`, `item_cf`, `repeat`, `popular`; `local` in a list of this client.
        rung: The rung of the ladder that answered; None in a local list.
        degraded: Whether the answer came from below the rung `full`, or from this client.
        reason: Why it is degraded, or shorter than asked for; of a local list, why the service gave none.
        warnings: What the caller must know about the answer, in sentences.
        segment: The user's segment.
        strategy: How the model decoded the list; None if no model did.
        model_version: The model in service.
        arms: The arm of each experiment that the user is in.
        rules: What became of each rule, by name: `held`, `bit` or `not_kept`.
        cursor: Asks for the next page (`next_page`); None without one.
        request_id: Name of the request in the logs of the service.
        user_id: The user that the list is for.
        session_id: The session that the list is for, if no user was named.
        local: Whether this client made the list: the last good one of the same question, or the configured one.
        error: Why the service gave no list; only in a local one.
        raw: The answer as the service sent it.
    """

    items: tuple[RankedItem, ...]
    list_id: str | None
    source: str
    rung: Rung | None
    degraded: bool
    reason: str | None
    warnings: tuple[str, ...]
    segment: str | None
    strategy: str | None
    model_version: str | None
    arms: Mapping[str, str]
    rules: Mapping[str, str]
    cursor: str | None
    request_id: str | None
    user_id: str | None
    session_id: str | None
    local: bool = False
    error: ClientError | None = None
    raw: Json = field(default_factory=dict, repr=False)

    @property
    def item_ids(self) -> list[str]:
        """The ids of the items, best first."""
        return [item.item_id for item in self.items]

    def event(self, type: str, item_id: str | None = None, **more: Any) -> Event:  # noqa: A002 - the wire's name
        """Returns an event of this list's subject that is attributed to the list.

        Args:
            type: What happened: `click`, `cart`, `purchase`, `impression`, …
            item_id: The item; None in an impression of the whole list.
            more: Other members of `Event`.
        """
        subject = {"user_id": self.user_id, "session_id": self.session_id, "list_id": self.list_id}
        return Event(**{**subject, **more, "type": type, "item_id": item_id})

    def as_local(self, items: tuple[RankedItem, ...], error: ClientError, reason: str) -> Recommendation:
        """Returns these items as a local list: no event can be attributed to the list a second time."""
        return replace(
            self,
            rules={}, items=items, list_id=None, source="local", rung=None, degraded=True, reason=reason, cursor=None,
            local=True, error=error,
        )  # fmt: skip


def recommendation(raw: Json, session_id: str | None = None) -> Recommendation:
    """Returns the answer of `/recommend`, of a page or of a basket."""
    user_id = raw.get("user_id")
    return Recommendation(
        items=ranked(raw["items"]),
        list_id=raw.get("list_id"),
        source=raw["source"],
        rung=raw.get("rung"),
        degraded=bool(raw.get("degraded", False)),
        reason=raw.get("reason"),
        warnings=tuple(raw.get("warnings", ())),
        segment=raw.get("segment"),
        strategy=raw.get("strategy"),
        model_version=raw.get("model_version"),
        arms=raw.get("arms") or {},
        rules={rule["name"]: rule["result"] for rule in raw.get("rules") or ()},
        cursor=raw.get("cursor"),
        request_id=raw.get("request_id"),
        user_id=user_id,
        session_id=None if user_id is not None else raw.get("session_id", session_id),
        raw=raw,
    )


def batch(raw: Json, bodies: Sequence[Json]) -> list[Recommendation | ClientError]:
    """Returns the answers of `/recommend/batch`, in order: a list, or why there is none."""
    return [
        problem(entry["status"], entry["problem"], None)
        if entry["answer"] is None
        else recommendation(entry["answer"], body.get("session_id"))
        for entry, body in zip(raw["answers"], bodies, strict=True)
    ]


def ranked(items: list[Json]) -> tuple[RankedItem, ...]:
    """Returns the items of a list."""
    return tuple(
        RankedItem(one["item_id"], one["rank"], one.get("score"), one.get("title"), one.get("because"),
                   one.get("brand"), one.get("price"), one.get("currency"), one.get("image"), one.get("url"), one)
        for one in items
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EventsAnswer:
    """What became of a batch of events.

    Attributes:
        accepted: Events that are stored now.
        duplicates: Events that were stored before, by their `event_id`.
        unknown_items: Items that the model does not know.
        warnings: What had no effect, in sentences.
        request_id: Name of the request in the logs of the service.
    """

    accepted: int
    duplicates: int
    unknown_items: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    request_id: str | None = None


def events_answer(raw: Json) -> EventsAnswer:
    """Returns the answer of `/events`."""
    return EventsAnswer(
        raw["accepted"], raw["duplicates"], tuple(raw.get("unknown_items", ())), tuple(raw.get("warnings", ())),
        raw.get("request_id"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Related:
    """Items that go with an item: those like it, or those bought together with it.

    Attributes:
        item_id: The item that was asked about.
        items: The items, nearest first.
        source: What ranked them: `baskets`, `item_cf`.
        warnings: What the caller must know, in sentences.
        raw: The answer as the service sent it.
    """

    item_id: str
    items: tuple[RankedItem, ...]
    source: str
    warnings: tuple[str, ...] = ()
    raw: Json = field(default_factory=dict, repr=False)

    @property
    def item_ids(self) -> list[str]:
        """The ids of the items, nearest first."""
        return [item.item_id for item in self.items]


def related(raw: Json) -> Related:
    """Returns the answer of `/items/{item_id}/similar` or `/together`."""
    return Related(raw["item_id"], ranked(raw["items"]), raw["source"], tuple(raw.get("warnings", ())), raw)


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure deleted.

    Attributes:
        user_id: The user.
        deleted: Number of keys.
        entries: Number of entries of the streams of lists and events.
    """

    user_id: str
    deleted: int
    entries: int


def erased(raw: Json) -> Erased:
    """Returns the answer of `DELETE /users/{user_id}`."""
    return Erased(raw["user_id"], raw["deleted"], raw["entries"])
