"""Schemas of the answers that hold lists: of one request or several, and of what belongs to items."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.engine.decoding import Strategy
from service.engine.fallback import Source
from service.engine.rule_report import RuleResult
from service.guard.guard import Reason, Rung
from service.schemas.answer import Answer, Problem, Warned


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


class SimilarAnswer(Answer):
    """The neighbours of an item."""

    item_id: str
    items: list[RankedItem]
    source: Literal["item_cf"]
    model_version: str
    request_id: str


class BatchEntry(Answer):
    """What became of one entry of a batch."""

    status: int = Field(description="The status that `/recommend` would have answered with.")
    answer: RecommendAnswer | None = Field(
        description="The answer; its `request_id` is that of the batch with the number of the entry. Null if there is "
        "none."
    )
    problem: Problem | None = Field(description="Why there is no answer; null if there is one.")


class BatchAnswer(Answer):
    """The answers to the entries of a batch, in their order."""

    answers: list[BatchEntry]
    request_id: str


class TogetherAnswer(Answer):
    """What is in baskets together with an item."""

    item_id: str
    items: list[RankedItem]
    source: Literal["baskets", "item_cf"] = Field(
        description="`baskets`: the items are taken together in one basket, and `score` says how often beside how "
        "often each is taken. `item_cf`: nothing is known of baskets, which `warnings` says, and the items are the "
        "nearest by item-CF."
    )
    warnings: Warned
    model_version: str
    request_id: str


class BasketAnswer(RecommendAnswer):
    """A list of what goes with a basket."""

    found_by: Literal["baskets", "item_cf", "popular"] = Field(
        description="What found the items that were ranked: baskets of the data, or, where these know nothing of the "
        "basket, what is listed below the model for someone who took these items, or popular items."
    )
