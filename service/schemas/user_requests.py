"""Request bodies about users and sessions: their events, features and merge."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from service.schemas.body import SUBJECT_IDS, TEXT, Body, any_of
from service.schemas.values import Feature, Id, Name, TimeMs, Value
from service.store.user_features import FEATURES_BYTES_MAX, FEATURES_MAX, fits

MAX_EVENTS = 1000


class Event(Body):
    """An event to store. `user_id` or `session_id` must be given.

    Only a search may lack an `item_id`, and an impression that names the list or the request whose list was seen.
    """

    model_config = any_of(
        *(
            {**subject, **what}
            for subject in SUBJECT_IDS
            for what in (
                {"item_id": TEXT},
                {"type": {"const": "search"}},
                {"type": {"const": "impression"}, "list_id": TEXT},
                {"type": {"const": "impression"}, "request_id": TEXT},
            )
        )
    )

    user_id: Id | None = Field(None, description="The user who did it.")
    session_id: Id | None = Field(
        None, description="The anonymous session in which it happened. With a `user_id`, the event is the user's."
    )
    item_id: Id | None = Field(
        None, description="The item. An impression without one says that the list was seen as a whole."
    )
    type: Name = Field(description="What happened: view, click, cart, purchase, rating, search, impression, or other.")
    timestamp: TimeMs = Field(description="When it happened: epoch seconds or milliseconds, or ISO 8601.")
    event_id: Id | None = Field(
        None,
        description="Names one event of this user or session: an event whose id came before is a duplicate, whatever "
        "its time, item and type. Ids are remembered for the events of the history (with another item or type, the "
        "newest 256 of them), for the 1,024 that left it last, and for the newest 256 impressions and searches "
        "without an item. Those have ids of their own: a click may have the id of its impression.",
    )
    value: Value | None = Field(None, description="Rating, price, dwell time …")
    query: Annotated[str, Field(max_length=512)] | None = Field(None, description="The search query.")
    request_id: Id | None = Field(
        None,
        description="Id of the /recommend answer that led to the event. `list_id` is surer: a caller may give many "
        "requests one id.",
    )
    list_id: Id | None = Field(
        None,
        description="`list_id` of the /recommend answer that showed the item. Without it and without `request_id`, the "
        "event is attributed to the user's newest list that shows the item.",
    )

    @model_validator(mode="after")
    def _has_subject_and_item(self) -> Self:
        if self.user_id is None and self.session_id is None:
            raise ValueError("user_id or session_id is required")
        whole_list = self.type == "impression" and (self.list_id is not None or self.request_id is not None)
        if self.item_id is None and self.type != "search" and not whole_list:
            raise ValueError(
                "item_id is required; only a search may omit it, and an impression that names a list_id or request_id"
            )
        return self


class EventsRequest(Body):
    """A batch of events. It is accepted or rejected as a whole."""

    events: list[Event] = Field(min_length=1, max_length=MAX_EVENTS, description="The events, in any order.")


class FeaturesRequest(Body):
    """The features of a user or session. They take the place of those that were stored before."""

    features: dict[Name, Feature] = Field(
        max_length=FEATURES_MAX,
        description="Texts, numbers, true or false by name: who it is and what they like. Names and values that the "
        "model does not know are stored too, because a later model may know them. Together at most "
        f"{FEATURES_BYTES_MAX:,} bytes of JSON; `{{}}` deletes them.",
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not fits(self.features):
            raise ValueError(f"the features are larger than {FEATURES_BYTES_MAX:,} bytes of JSON; store fewer")
        return self


class MergeRequest(Body):
    """Moves the history of an anonymous session to the user who logged in."""

    session_id: Id
    user_id: Id
