"""Decoding policies: which segment a user belongs to, and how its lists are decoded.

They are read from a YAML file, validated, and only ever replaced as a whole.
"""

from __future__ import annotations

import math
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from service.common.errors import PolicyError
from service.common.request_errors import UnknownSegment
from service.engine.decoding import Decoding, Strategy, beam_of
from service.policies.segments import FACTS, Facts
from service.rules.ruling import Ruling, is_constant, ruling_of
from service.rules.spec import RULES_MAX, Diversity, ListRule, unique_names


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


# What a segment and a request for a list say of decoding alike.
StrategyName = Annotated[Strategy, Field(description="beam, top_p, temperature or greedy.")]
BeamWidth = Annotated[
    int | None,
    Field(
        ge=1,
        le=128,
        description="Candidates for each recommended item, at the least (beam); at most 128 in all. Without it there "
        "are as many as the export found to make the same lists, or 5 for each item.",
    ),
]
NucleusMass = Annotated[float, Field(gt=0, le=1, description="Probability mass of the nucleus (top_p).")]


class DecodingSpec(_Part):
    """How lists of a segment are decoded."""

    strategy: StrategyName
    beam_width: BeamWidth = None
    top_p: NucleusMass = 0.9
    temperature: float = Field(
        1.0,
        ge=0.05,
        le=10,
        description="Above 1 spreads the distribution, below 1 sharpens it (top_p, temperature).",
    )

    def build(self) -> Decoding:
        """Returns the same as the engine takes it."""
        return Decoding(self.strategy, top_p=self.top_p, temperature=self.temperature, **beam_of(self.beam_width))


_Count = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]


class Rule(_Part):
    """Bounds on facts of the history; every given bound must hold. A bound on an unknown fact never holds."""

    min_events: _Count | None = Field(None, description="Minimum number of events.")
    max_events: _Count | None = Field(None, description="Maximum number of events.")
    min_recency_s: _Seconds | None = Field(None, description="Minimum time since the last event, in seconds.")
    max_recency_s: _Seconds | None = Field(None, description="Maximum time since the last event, in seconds.")
    min_category_entropy: _Share | None = Field(None, description="Minimum entropy of the categories, 0 to 1.")
    max_category_entropy: _Share | None = Field(None, description="Maximum entropy of the categories, 0 to 1.")
    min_repeat_share: _Share | None = Field(None, description="Minimum share of repeated items.")
    max_repeat_share: _Share | None = Field(None, description="Maximum share of repeated items.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for fact in FACTS:
            low, high = getattr(self, f"min_{fact}"), getattr(self, f"max_{fact}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{fact} is above max_{fact}")
        return self

    @cached_property
    def _given(self) -> list[tuple[str, float, float]]:
        """Returns (fact, low, high) of every fact with a bound."""
        bounds = [(fact, getattr(self, f"min_{fact}"), getattr(self, f"max_{fact}")) for fact in FACTS]
        return [
            (fact, -math.inf if low is None else low, math.inf if high is None else high)
            for fact, low, high in bounds
            if low is not None or high is not None
        ]

    def holds(self, facts: Facts) -> bool:
        """Returns whether the facts are within all bounds."""
        for fact, low, high in self._given:
            value = getattr(facts, fact)
            if value is None or not low <= value <= high:
                return False
        return True


def _as_tuple(value: Any) -> Any:
    if isinstance(value, dict):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class Exploration(_Part):
    """A share of the lists of a segment that is drawn, so that other policies can be judged by what came of them."""

    share: float = Field(
        gt=0,
        le=1,
        description="Share of the lists, chosen by their seed: without one in the request, by the user, the history "
        "and the hour.",
    )
    decoding: DecodingSpec = Field(description="How these lists are decoded: top_p or temperature.")

    @model_validator(mode="after")
    def _draws(self) -> Self:
        if not self.decoding.build().sampled:
            raise ValueError("decoding.strategy must be top_p or temperature: only drawn lists explore")
        return self


ListRules = Annotated[tuple[ListRule, ...], Field(max_length=RULES_MAX), AfterValidator(unique_names)]


class Segment(_Part):
    """A segment of users: its name, the rules of who belongs to it, and how its lists are decoded."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,31}$",
        description="Name, also a metric label. Where the artefact has ranker weights for it, its users get those.",
    )
    when: Annotated[tuple[Rule, ...], BeforeValidator(_as_tuple)] = Field(
        (),
        max_length=64,
        description="One rule or a list of rules, of which at least one must hold. Without a rule, the segment is used "
        "only by name or as the default.",
    )
    decoding: DecodingSpec = Field(description="How lists of this segment are decoded.")
    explore: Exploration | None = Field(
        None, description="A share of its lists that is decoded in another way. Without it, none is."
    )
    order: Literal["off", "deterministic", "all"] | None = Field(
        None,
        description="Which lists are put into order where the artefact has an order model: off, deterministic (the "
        "default: drawn lists keep their order), or all but those that explore.",
    )
    rules: ListRules | None = Field(None, description="Rules of its lists, beside those of all segments.")
    diversity: Diversity | None = Field(None, description="How the items of its lists are to differ from each other.")


class Policies(_Part):
    """The content of a policies file, such as `service/policies/default.yaml`."""

    segments: tuple[Segment, ...] = Field(
        min_length=1, max_length=32, description="Tried in order; the first segment whose rule holds is used."
    )
    default: str = Field(description="Segment for histories that no rule matches.")
    rules: ListRules | None = Field(None, description="Rules of all lists.")

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [segment.name for segment in self.segments]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"segment {repeated[0]} is defined twice")
        if self.default not in names:
            raise ValueError(f"default names the unknown segment {self.default}")
        return self

    @cached_property
    def digest(self) -> str:
        """A digest of the policies, 12 hex digits: the same for the same policies, wherever they come from."""
        return blake2b(self.model_dump_json(exclude_none=True).encode(), digest_size=6).hexdigest()

    def ruling(self, segment: Segment, now_ms: int, of: str) -> Ruling | None:
        """Returns the rules of a list of a segment, and its diversity; None if there are none.

        Args:
            segment: One of the segments.
            now_ms: Time of the request, in epoch milliseconds.
            of: What shares of requests are drawn by.
        """
        if not self.rules and not segment.rules and segment.diversity is None:
            return None
        if segment.name in self._constant_rulings:
            return self._constant_rulings[segment.name]
        sources = ((), segment.rules or (), self.rules or ())
        return ruling_of(sources, segment.diversity, now_ms=now_ms, of=of)

    @cached_property
    def _constant_rulings(self) -> dict[str, Ruling | None]:
        """By segment, where they are the same for every request."""
        return {
            one.name: ruling_of(((), one.rules or (), self.rules or ()), one.diversity, now_ms=0, of="")
            for one in self.segments
            if is_constant([*(one.rules or ()), *(self.rules or ())])
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the segments, in order."""
        return tuple(segment.name for segment in self.segments)

    def named(self, name: str) -> Segment:
        """Returns the segment with this name.

        Raises:
            UnknownSegment: no segment has this name.
        """
        for segment in self.segments:
            if segment.name == name:
                return segment
        message = f"no segment with this name; the segments are {', '.join(self.names)}"
        raise UnknownSegment(message, [{"loc": ["segment"], "message": message, "type": "unknown_segment"}])

    def choose(self, facts: Facts) -> Segment:
        """Returns the first segment with a rule that holds, otherwise the default segment."""
        for segment in self.segments:
            if any(rule.holds(facts) for rule in segment.when):
                return segment
        return self.named(self.default)


def parse(data: Any) -> Policies:
    """Validates policies.

    Args:
        data: The content of a policies file, as YAML or JSON reads it.

    Raises:
        PolicyError: the message has the place of every fault, such as `segments[1].decoding.top_p: …`.
    """
    try:
        return Policies.model_validate(data)
    except ValidationError as error:
        faults = [f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise PolicyError("; ".join(faults)) from None


def load(path: Path) -> Policies:
    """Reads and validates a policies file.

    Raises:
        PolicyError: the message has the file and the place of every fault.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read ({type(error).__name__})") from error
    except (yaml.YAMLError, ValueError) as error:  # an impossible date raises ValueError
        raise PolicyError(f"{path}: is not valid YAML: {error}") from error
    except RecursionError:
        raise PolicyError(f"{path}: is not valid YAML: it is nested too deeply") from None
    try:
        return parse(data)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def _place(loc: tuple[int | str, ...]) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return steps.lstrip(".") or "file"


class PolicyBook:
    """Holds the policies in force. A request reads `current` once, so it keeps the policies it began with."""

    def __init__(self, policies: Policies) -> None:
        self.current = policies

    def replace(self, policies: Policies) -> None:
        """Puts other policies in force, for requests that begin from now on."""
        self.current = policies
