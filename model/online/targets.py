"""What another policy would have drawn a logged list from: the candidates that it sees, and its law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from model.online.log_schema import LogError
from model.online.logged_lists import ItemNumbers, LoggedList, law_of
from model.online.marginals import Law
from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.engine.decoding import Decoding
from service.policies.policies import Policies


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """What a list is drawn from under a policy.

    Attributes:
        scores: [n] fused scores of the candidates.
        law: How the list is drawn.
        items: [n] numbers of the candidates (`ItemNumbers`); −1 where not known.
        shown: [d] place of the item of each drawn position of the logged list; −1 where it is no candidate.
        same: Whether the candidates are those of the log, so that it is known what the log cannot draw.
    """

    scores: FloatArray | Float64Array
    law: Law
    items: IntArray
    shown: IntArray
    same: bool


class Target(Protocol):
    """A policy to judge."""

    name: str
    # Whether it decodes with a model of its own: no list of the log is then its own.
    own_model: bool

    def decoding(self, segment: str) -> Decoding | None:
        """Returns how it decodes the lists of a segment; None: as they were."""

    def of(self, lists: Sequence[LoggedList], numbers: ItemNumbers) -> list[Drawn | None]:
        """Returns what each list would be drawn from, with the numbers of the items; None where it is not known."""


class PoliciesTarget:
    """Other policies over the candidates and scores of the log: temperature, nucleus, or the order of the scores.

    Attributes:
        name: What it is called.
        own_model: It has none.
    """

    own_model = False

    def __init__(self, policies: Policies, name: str) -> None:
        self.name = name
        self._policies = policies

    def decoding(self, segment: str) -> Decoding:
        """Returns the decoding of a segment.

        Raises:
            LogError: The policies have no such segment.
        """
        return decoding_in(self._policies, segment)

    def of(self, lists: Sequence[LoggedList], numbers: ItemNumbers) -> list[Drawn | None]:
        """Returns what each list would be drawn from."""
        return [
            Drawn(
                one.scores,
                law_of(self.decoding(one.segment)),
                numbers.of_candidates(one),
                one.shown,
                same=True,
            )
            for one in lists
        ]


def decoding_in(policies: Policies, segment: str) -> Decoding:
    """Returns how policies decode the lists of a segment; its exploration is not part of it.

    Raises:
        LogError: The policies have no such segment.
    """
    if segment not in policies.names:
        raise LogError(
            f"the policies have no segment {segment!r}, which lists of the log are of",
            fix=f"add it, or judge policies with the segments of the log; they have {', '.join(policies.names)}",
        )
    return policies.named(segment).decoding.build()
