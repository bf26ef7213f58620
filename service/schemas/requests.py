"""Request bodies of the HTTP interface. Unknown fields are rejected, and no value is silently converted."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.common.request_errors import BadRequest, InvalidRequest
from service.engine.decoding import Decoding, Strategy, beam_of
from service.experiments.document import ExperimentSpec, HoldOut
from service.policies.policies import ListRules, Policies
from service.rules.spec import Diversity
from service.schemas import deprecations
from service.schemas.body import Body
from service.schemas.body_bounds import check_nodes, listed, most_nodes
from service.schemas.item_filter import FIELDS_DESCRIPTION, FILTER_DESCRIPTION, FieldsBody, ItemFilterBody
from service.schemas.not_json import what_it_is
from service.schemas.values import Feature, Id, Name, Seed, TimeMs, Value
from service.store.user_features import FEATURES_BYTES_MAX, FEATURES_MAX, fits

MAX_INLINE_EVENTS = 200
MAX_EVENTS = 1000
MAX_EXCLUDED = 1000
MAX_CANDIDATES = 500
# A cursor: base64 that begins with the number of its format (`service.recommend.page_token`).
CURSOR_MAX = 65_536
_CURSOR = r"^A[Q-Za-f][A-Za-z0-9_-]+$"
# An empty list by default. Written as a `default`, it would be deep-copied for every request.
_EMPTY: dict[str, Any] = {"default_factory": list, "json_schema_extra": {"default": []}}


class InlineEvent(Body):
    """An event of the current session. It is used for this answer only, and not stored."""

    item_id: Id = Field(description="The item.")
    type: Name = Field(
        "view",
        description="What happened; a type that the model does not know counts as `other`, and an "
        "impression is no part of a history.",
    )
    timestamp: TimeMs | None = Field(
        None, description="When it happened. Without one: in this minute, after all events that have one."
    )


class DecodingOverride(Body):
    """Replaces the decoding of the segment, for one answer."""

    strategy: Strategy = Field(description="beam, top_p, temperature or greedy.")
    beam_width: int | None = Field(
        None,
        ge=1,
        le=128,
        description="Candidates for each recommended item, at the least (beam); at most 128 in all. Without it there "
        "are as many as the export found to make the same lists, or 5 for each item.",
    )
    top_p: float = Field(0.9, gt=0, le=1, description="Probability mass of the nucleus (top_p).")
    temperature: float | None = Field(
        None,
        ge=0.05,
        le=10,
        description="Above 1 spreads the distribution, below 1 sharpens it (top_p, temperature). Defaults to 1.2 for "
        "the strategy `temperature`, else to 1.",
    )

    def build(self) -> Decoding:
        """Returns the decoding that these values describe."""
        default = 1.2 if self.strategy == "temperature" else 1.0
        return Decoding(
            self.strategy, top_p=self.top_p, temperature=self.temperature or default, **beam_of(self.beam_width)
        )


def _any_of(*alternatives: dict[str, Any]) -> ConfigDict:
    """Expresses in the JSON schema what the validators below check: one of these members is given, and not null."""
    return ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": list(members), "properties": dict(members)} for members in alternatives]
        }
    )


_TEXT = {"type": "string"}
_SUBJECT_IDS = ({"user_id": _TEXT}, {"session_id": _TEXT})


# What makes a list. Its pages are parts of a list that is made already.
_NOT_WITH_CURSOR = frozenset(
    {
        "events", "candidates", "page", "scene", "context", "exclude_seen", "segment", "decoding", "seed", "features",
        "arm", "explain", "rules", "policy_rules", "diversity",
    }
)  # fmt: skip


class RecommendRequest(Body):
    """Asks for a list of items. At least one of `user_id`, `session_id`, `events` and `cursor` must be given."""

    # What warnings call the items of `events`.
    EVENTS_ARE: ClassVar[str] = "items of events"

    model_config = _any_of(*_SUBJECT_IDS, {"events": {"type": "array", "minItems": 1}}, {"cursor": _TEXT})

    user_id: Id | None = Field(None, description="The user whose stored history the list is made from.")
    session_id: Id | None = Field(
        None,
        description="The anonymous session whose stored history the list is made from. With a `user_id`, the "
        "history of the user alone is read.",
    )
    events: list[InlineEvent] = Field(
        **_EMPTY,
        max_length=MAX_INLINE_EVENTS,
        description="Events of the current session, for this answer only. They join the stored history.",
    )
    k: int = Field(
        10,
        ge=1,
        le=100,
        description="Number of items to list. Left out beside `candidates`, all of them that may be listed are.",
    )
    candidates: list[Id] | None = Field(
        None,
        min_length=1,
        max_length=MAX_CANDIDATES,
        description="Ranks these items instead of choosing from the catalogue: by the score of the model, or of the "
        "rung that answers, best first. Items that may not be listed are left out, and `warnings` names them. "
        "`decoding` and `seed` have no effect on such a list.",
    )
    page: bool = Field(
        False,
        description="Ranks up to 200 items more than `k`; `cursor` of the answer gets the next of them.",
    )
    cursor: Annotated[str, Field(pattern=_CURSOR, max_length=CURSOR_MAX)] | None = Field(
        None,
        description="The `cursor` of the page before: lists the next `k` items of the same list, less those that may "
        "not be listed any more. `exclude` and `filter` may narrow it; what made the list cannot be named again.",
    )
    scene: Name | None = Field(None, description="Where the list is shown, as in the training data.")
    context: dict[Name, Feature] | None = Field(
        None, max_length=32, description="Control codes of the list: a category, a price band, a style."
    )
    filter: ItemFilterBody | None = Field(None, description=FILTER_DESCRIPTION)
    fields: FieldsBody | None = Field(None, description=FIELDS_DESCRIPTION)
    exclude: list[Id] = Field(**_EMPTY, max_length=MAX_EXCLUDED, description="Items that must not be listed.")
    exclude_seen: bool | None = Field(
        None,
        description="Leaves out every item of the stored history and of `events`, whatever the type of its event, and "
        "the items remembered beyond the history (GPT4REC_SEEN_MAX). Where it is left out or null, the model decides: "
        "false if it was made from a log in which people take the same items again (`repeats`), else true.",
    )
    segment: Name | None = Field(None, description="Overrides the segment that the rules would choose.")
    decoding: DecodingOverride | None = Field(None, description="Replaces the decoding of the segment.")
    rules: ListRules | None = Field(
        None, description="Rules of the list, beside those of the policies. One with the name of another replaces it."
    )
    policy_rules: bool = Field(True, description="Whether the rules and the diversity of the policies hold.")
    diversity: Diversity | None = Field(
        None, description="How the items are to differ from each other, in place of what the policies say."
    )
    seed: Seed | None = Field(
        None,
        description="Of a sampled list: a number from 0 to 2⁶³ − 1 makes it repeatable, and `fresh` draws it anew for "
        "each request. Without one it follows from the user, the version of the history and the hour: the same "
        "question has the same list until something happens. Without a user and a session each request draws anew.",
    )
    features: dict[Name, Feature] | None = Field(
        None,
        max_length=FEATURES_MAX,
        description="Features of the user, for this answer. Where they are left out or null, the stored ones count "
        "(`PUT /users/{user_id}/features`); `{}` answers as if nothing were known.",
    )
    arm: dict[Name, Name] | None = Field(
        None,
        max_length=8,
        description="Puts this answer into arms, by experiment, for testers. It needs an ops token, or an API key with "
        "the right `users`. Such a list counts for no arm.",
    )
    explain: bool = Field(
        False,
        description="Adds `because` to every item: what each signal contributed to its score, and the event that "
        "carried most of it. Within the budget: if the time left does not suffice, `warnings` says so.",
    )
    budget_ms: float | None = Field(
        None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="Time budget of the answer; `GPT4REC_DEADLINE_MS` without one, at most `GPT4REC_DEADLINE_MAX_MS`.",
    )

    @model_validator(mode="after")
    def _has_subject(self) -> Self:
        if self.user_id is None and self.session_id is None and not self.events and self.cursor is None:
            raise ValueError("one of user_id, session_id and events is required")
        if self.cursor is not None and (given := _NOT_WITH_CURSOR & self.model_fields_set):
            raise ValueError(f"beside a cursor, {', '.join(sorted(given))} cannot be given: the list is made already")
        return self


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


class Event(Body):
    """An event to store. `user_id` or `session_id` must be given.

    Only a search may lack an `item_id`, and an impression that names the list or the request whose list was seen.
    """

    model_config = _any_of(
        *(
            {**subject, **what}
            for subject in _SUBJECT_IDS
            for what in (
                {"item_id": _TEXT},
                {"type": {"const": "search"}},
                {"type": {"const": "impression"}, "list_id": _TEXT},
                {"type": {"const": "impression"}, "request_id": _TEXT},
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


class WhyRequest(Body):
    """Events whose share in the encoded state is asked for."""

    events: list[InlineEvent] = Field(min_length=1, max_length=MAX_INLINE_EVENTS)
    features: dict[Name, Feature] | None = Field(
        None, max_length=FEATURES_MAX, description="Features of the user, for encoders that read them."
    )


class MergeRequest(Body):
    """Moves the history of an anonymous session to the user who logged in."""

    session_id: Id
    user_id: Id


class FallbackRequest(Body):
    """Forces a mode, or returns to `auto`."""

    mode: Literal["auto", "fallback", "model"]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    expires_in_s: float | None = Field(None, gt=0, le=31_536_000, allow_inf_nan=False)


Why = Annotated[str, Field(min_length=1, max_length=500)]


class ChangeRequest(Body):
    """A change by an operator, with the reason for it."""

    reason: Why | None = Field(None, description="Recorded in the audit log.")


class PoliciesRequest(Policies):
    """Policies as in the policies file, with the reason for the change."""

    reason: Why | None = Field(None, description="Recorded in the audit log.")

    def policies(self) -> Policies:
        """Returns the policies without the reason."""
        return Policies(segments=self.segments, default=self.default, rules=self.rules)


class StartExperimentRequest(ExperimentSpec):
    """An experiment to start, with the reason for it."""

    reason: Why | None = Field(None, description="Recorded in the audit log.")

    def spec(self) -> ExperimentSpec:
        """Returns the experiment without the reason."""
        return ExperimentSpec.model_validate(self.model_dump(exclude={"reason"}, exclude_none=True))


class PromoteRequest(Body):
    """The arm that everybody gets."""

    arm: Name = Field(description="Name of the arm.")
    reason: Why | None = Field(None, description="Recorded in the audit log.")


class HoldOutRequest(HoldOut):
    """The hold-out, with the reason for it."""

    reason: Why | None = Field(None, description="Recorded in the audit log.")

    def holdout(self) -> HoldOut:
        """Returns the hold-out without the reason."""
        return HoldOut(share=self.share, model=self.model, salt=self.salt)


REQUEST_BODIES: tuple[type[BaseModel], ...] = (
    RecommendRequest,
    WhyRequest,
    EventsRequest,
    FeaturesRequest,
    MergeRequest,
    FallbackRequest,
    ChangeRequest,
    PoliciesRequest,
    StartExperimentRequest,
    PromoteRequest,
    HoldOutRequest,
)
for _body in REQUEST_BODIES:  # now, and not during the first request
    most_nodes(_body)


B = TypeVar("B", bound=BaseModel)


def parse(body: type[B], raw: bytes, *, latest_ms: int | None = None, nodes_max: int | None = None) -> B:
    """Parses and validates a JSON body.

    Args:
        body: The model to validate against.
        raw: The bytes of the request.
        latest_ms: The latest timestamp that an event may carry, in epoch milliseconds; None for no limit.
        nodes_max: The most members and elements; None for what a valid body can have.

    Raises:
        BadRequest: The body is not JSON.
        InvalidRequest: The body does not match, or holds more than any valid one; the faults are listed with their
            locations (`body_bounds.listed`).
    """
    check_nodes(raw, most_nodes(body) if nodes_max is None else nodes_max)
    try:
        found = body.model_validate_json(raw, strict=True, context={"latest_ms": latest_ms})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
    else:
        deprecations.note(found)
        return found
    if faults[0]["type"] == "json_invalid":
        raise BadRequest(what_it_is(raw, faults[0]["msg"]))
    raise InvalidRequest("the body is not valid; see errors", listed(faults))
