"""The body of a request for a list."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from service.engine.decoding import Decoding, beam_of
from service.policies.policies import BeamWidth, ListRules, NucleusMass, StrategyName
from service.rules.spec import Diversity
from service.schemas.body import SUBJECT_IDS, TEXT, Body, any_of
from service.schemas.item_filter import FIELDS_DESCRIPTION, FILTER_DESCRIPTION, FieldsBody, ItemFilterBody
from service.schemas.values import Feature, Id, Name, Seed, TimeMs
from service.store.user_features import FEATURES_MAX

MAX_INLINE_EVENTS = 200
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

    strategy: StrategyName
    beam_width: BeamWidth = None
    top_p: NucleusMass = 0.9
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

    model_config = any_of(*SUBJECT_IDS, {"events": {"type": "array", "minItems": 1}}, {"cursor": TEXT})

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
