"""Rules of a list, and its diversity, as policies and requests give them."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from service.artifact.items.filter_conditions import TEXT_FIELDS

# The longest list, and so the last position that a rule may be about.
POSITIONS_MAX = 100
# Rules that one policies file, one of its segments, or one request may give.
RULES_MAX = 16
# The name under which metrics count the rules of requests, which may have any name.
OF_REQUEST = "request"

_Value = Annotated[str, Field(min_length=1, max_length=256)]


def _of_items(where: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Returns what a rule names items by; a field that items do not have would never name any."""
    for name in where:
        if name not in TEXT_FIELDS:
            raise ValueError(f"items have no field {name!r} that rules read: name {', '.join(TEXT_FIELDS)}")
    return where


_Item = Annotated[str, Field(min_length=1, max_length=128)]
Where = Annotated[
    dict[_Value, Annotated[tuple[_Value, ...], Field(min_length=1, max_length=64)]],
    Field(min_length=1, max_length=8),
    AfterValidator(_of_items),
]
_First = Annotated[int, Field(ge=1, le=POSITIONS_MAX)]
_FIRST = "The rule is about so many first positions. Without it, about the whole list."


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Rule(_Spec):
    """What all rules have."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,31}$",
        description="Name, by which answers report the rule. A rule of a request takes the place of a rule of the "
        "policies that has its name, and one of a segment that of one for all segments.",
    )
    valid_from: AwareDatetime | None = Field(None, description="When the rule begins to hold, ISO 8601 with a zone.")
    valid_until: AwareDatetime | None = Field(None, description="When it ceases to hold.")
    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the lists that it holds for, chosen by their seed: without one in the request, by the "
        "user, the history and the hour.",
    )

    @model_validator(mode="after")
    def _valid(self) -> Self:
        if self.valid_from is not None and self.valid_until is not None and self.valid_from >= self.valid_until:
            raise ValueError("valid_until is not after valid_from")
        return self


def _question(kind: str, of: Any) -> str:
    """Returns a text that is the same for the same question about items."""
    return f"{kind} {json.dumps(of, sort_keys=True)}"


class Pin(_Rule):
    """Puts an item at a position."""

    kind: Literal["pin"]
    item: _Item = Field(description="Id of the item.")
    position: int = Field(ge=1, le=POSITIONS_MAX, description="Its position, 1 for the top.")

    @property
    def questions(self) -> tuple[str, ...]:
        """What the rule asks about items: nothing, it names one."""
        return (self.kind,)


class Boost(_Rule):
    """Ranks items with an attribute higher (`boost`) or lower (`bury`)."""

    kind: Literal["boost", "bury"]
    where: Where = Field(description="The items, as a filter names them.")
    times: float = Field(
        gt=1, le=1e6, description="As if the items were so many times as likely (`boost`), or unlikely (`bury`)."
    )

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """What the rule asks about items."""
        return (_question(self.kind, [self.where, self.times]),)


class AtMost(_Rule):
    """At most n items with an attribute, or of each category, brand or other attribute, in the first positions."""

    kind: Literal["at_most"]
    n: int = Field(ge=0, le=POSITIONS_MAX, description="The most items; 0 only with `where`.")
    each: Literal["category", "brand", "attribute"] | None = Field(
        None, description="Counts the items of each value of this field by themselves."
    )
    prefix: _Value | None = Field(
        None, description="With `each`: counts only values that begin so, such as `seller:` among the attributes."
    )
    depth: int | None = Field(
        None,
        ge=1,
        le=16,
        description="With `each: category`: counts items on category paths by so many first steps, 1 for the "
        "department. Without it, by their whole paths.",
    )
    where: Where | None = Field(None, description="Counts the items that this filter names. Give `each` or `where`.")
    first: _First | None = Field(None, description=_FIRST)

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if (self.each is None) == (self.where is None):
            raise ValueError("give either each or where")
        if self.prefix is not None and self.each is None:
            raise ValueError("prefix belongs to each")
        if self.depth is not None and self.each != "category":
            raise ValueError("depth belongs to each: category")
        if self.each is not None and self.n < 1:
            raise ValueError("n must be at least 1 with each")
        return self

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """What the rule asks about items."""
        return (_question(self.kind, self.where or [self.each, self.prefix, self.depth]),)


class AtLeast(_Rule):
    """At least n items with an attribute, or n items new to the catalogue, in the first positions."""

    kind: Literal["at_least"]
    n: int = Field(ge=1, le=POSITIONS_MAX, description="The fewest items; all positions, if they are fewer.")
    where: Where | None = Field(None, description="The items, as a filter names them. Give `where` or `new`.")
    new: Literal[True] | None = Field(
        None, description="The items are those without an event in the data that the model was trained on."
    )
    first: _First | None = Field(None, description=_FIRST)

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if (self.where is None) == (self.new is None):
            raise ValueError("give either where or new")
        if self.first is not None and self.n > self.first:
            raise ValueError("n is more than the first positions")
        return self

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """What the rule asks about items."""
        return (_question(self.kind, self.where),)


class Apart(_Rule):
    """Keeps items from standing in one list: at most one of `items`, or items of at most one of `groups`."""

    kind: Literal["apart"]
    items: Annotated[tuple[_Item, ...], Field(min_length=2, max_length=64)] | None = Field(
        None, description="Ids of items of which at most one is listed. Give `items` or `groups`."
    )
    groups: Annotated[tuple[Where, ...], Field(min_length=2, max_length=8)] | None = Field(
        None, description="Groups of items, each as a filter names it. An item is of the first group that names it."
    )
    first: _First | None = Field(None, description=_FIRST)

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if (self.items is None) == (self.groups is None):
            raise ValueError("give either items or groups")
        return self

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """What the rule asks about items."""
        return (_question(self.kind, self.items or self.groups),)


ListRule = Annotated[Pin | Boost | AtMost | AtLeast | Apart, Field(discriminator="kind")]


class Diversity(_Spec):
    """Chooses a list whose items differ from each other."""

    method: Literal["mmr", "dpp"] = Field(
        description="`mmr`: maximal marginal relevance. `dpp`: a determinantal point process, greedily."
    )
    weight: float = Field(
        ge=0,
        le=1,
        description="0 ranks by score alone, 1 by how much an item differs from those above it alone.",
    )


def unique_names(rules: tuple[ListRule, ...]) -> tuple[ListRule, ...]:
    """Returns the rules.

    Raises:
        ValueError: Two of them share a name.
    """
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two rules are named {name}")
    return rules
