"""Decoding policies: which users are decoded how. Read from a YAML file, validated, replaced as a whole."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from service.common.errors import PolicyError, UnknownSegment
from service.engine.decoding import Decoding, Strategy
from service.policies.segments import FACTS, Facts


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DecodingSpec(_Part):
    """How a list is decoded."""

    strategy: Strategy = Field(description="beam, top_p, temperature or greedy.")
    beam_width: int = Field(5, ge=1, le=128, description="Beams for each recommended item (beam).")
    top_p: float = Field(0.9, gt=0, le=1, description="Probability mass of the nucleus (top_p).")
    temperature: float = Field(
        1.0,
        ge=0.05,
        le=10,
        description="Above 1 spreads the distribution, below 1 sharpens it (top_p, temperature).",
    )

    def build(self) -> Decoding:
        return Decoding(self.strategy, self.beam_width, self.top_p, self.temperature)


_Count = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]


class Rule(_Part):
    """Bounds on facts of the history; all that are given must hold. A bound on an unknown fact does not."""

    min_events: _Count | None = Field(None, description="At least so many events.")
    max_events: _Count | None = Field(None, description="At most so many events.")
    min_recency_s: _Seconds | None = Field(None, description="Last event at least so long ago.")
    max_recency_s: _Seconds | None = Field(None, description="Last event at most so long ago.")
    min_category_entropy: _Share | None = Field(None, description="Categories at least so mixed, 0 to 1.")
    max_category_entropy: _Share | None = Field(None, description="Categories at most so mixed, 0 to 1.")
    min_repeat_share: _Share | None = Field(None, description="At least this share of repeated items.")
    max_repeat_share: _Share | None = Field(None, description="At most this share of repeated items.")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for fact in FACTS:
            low, high = getattr(self, f"min_{fact}"), getattr(self, f"max_{fact}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{fact} is above max_{fact}")
        return self

    @cached_property
    def _given(self) -> list[tuple[str, float, float]]:
        """(fact, low, high) of the bounds that are given."""
        bounds = [(fact, getattr(self, f"min_{fact}"), getattr(self, f"max_{fact}")) for fact in FACTS]
        return [
            (fact, -math.inf if low is None else low, math.inf if high is None else high)
            for fact, low, high in bounds
            if low is not None or high is not None
        ]

    def holds(self, facts: Facts) -> bool:
        for fact, low, high in self._given:
            value = getattr(facts, fact)
            if value is None or not low <= value <= high:
                return False
        return True


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class Segment(_Part):
    """A kind of user."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="Name, also a metric label.")
    when: Annotated[tuple[Rule, ...], BeforeValidator(_listed)] = Field(
        (),
        description="One rule or a list of them, any of which may hold; none: only named or as the default.",
    )
    decoding: DecodingSpec = Field(description="How its lists are decoded.")


class Policies(_Part):
    """The file `service/policies/default.yaml`."""

    segments: tuple[Segment, ...] = Field(
        min_length=1, max_length=32, description="Tried in order; the first whose rule holds is taken."
    )
    default: str = Field(description="Segment of a history that no rule matches.")

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [segment.name for segment in self.segments]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"segment {repeated[0]} is defined twice")
        if self.default not in names:
            raise ValueError(f"default names the unknown segment {self.default}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(segment.name for segment in self.segments)

    def named(self, name: str) -> Segment:
        """Raises UnknownSegment."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        known = ", ".join(self.names)
        message = f"no segment of this name; known are {known}"
        raise UnknownSegment(message, [{"loc": ["segment"], "message": message, "type": "unknown_segment"}])

    def choose(self, facts: Facts) -> Segment:
        """The first segment whose rule holds, else the default."""
        for segment in self.segments:
            if any(rule.holds(facts) for rule in segment.when):
                return segment
        return self.named(self.default)


def parse(data: Any) -> Policies:
    """Raises PolicyError that names the place, e.g. `segments[1].decoding.top_p: …`."""
    try:
        return Policies.model_validate(data)
    except ValidationError as error:
        faults = [f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise PolicyError("; ".join(faults)) from None


def load(path: Path) -> Policies:
    """Raises PolicyError that names the file and the place."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read ({type(error).__name__})") from error
    except (yaml.YAMLError, ValueError) as error:  # a date that there is not is a ValueError
        raise PolicyError(f"{path}: not YAML: {error}") from error
    except RecursionError:
        raise PolicyError(f"{path}: not YAML: too deep") from None
    try:
        return parse(data)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def _place(loc: tuple[int | str, ...]) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return steps.lstrip(".") or "file"


class PolicyBook:
    """The policies in force. A reader takes `current` once a request; a new file replaces it as a whole."""

    def __init__(self, policies: Policies) -> None:
        self.current = policies

    def replace(self, policies: Policies) -> None:
        self.current = policies
