"""What answers a request: the model, policies and ranker weights of the arms that its subject is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from service.common.request_errors import InvalidRequest
from service.experiments.assignment import HELD_OUT, NOTHING, Assigned, Assignment
from service.experiments.document import Arm, Document, Experiment
from service.exposures.exposure import subject_name
from service.guard.guards import AS_FOR_EVERYBODY, Variant
from service.lifecycle.served_model import ServedModel
from service.lifecycle.serving import Serving
from service.policies.policies import Policies, PolicyBook
from service.store.records import Subject

_NO_ARMS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Placement:
    """What answers a request.

    Attributes:
        model: The model.
        policies: The policies.
        ranker: Group of ranker weights; None for that of the segment.
        arms: Arm of each experiment.
        variant: What of it is not as for everybody.
        forced: Whether the request said so: such a list counts for no arm, and its record names none.
    """

    model: ServedModel
    policies: Policies
    ranker: str | None = None
    arms: Mapping[str, str] = field(default_factory=dict)
    variant: Variant = AS_FOR_EVERYBODY
    forced: bool = False

    @property
    def counted(self) -> Mapping[str, str]:
        """The arms that the list counts for."""
        return _NO_ARMS if self.forced else self.arms


class Arms:
    """Places requests by the document in force.

    Args:
        serving: The model in service.
        policies: The policies in force.
        model_of: Returns a model in service or held, by its version; None if this replica does not hold it.
    """

    def __init__(self, serving: Serving, policies: PolicyBook, model_of: Callable[[str], ServedModel | None]) -> None:
        self._serving, self._policies, self._model_of = serving, policies, model_of
        self._document = Document()
        self._by: Assignment | None = None

    def follow(self, document: Document) -> None:
        """Places requests that begin from now on by another document."""
        self._document = document
        self._by = Assignment(document) if document.splits or document.holdout is not None else None

    def place(self, subject: Subject | None, forced: Mapping[str, str] | None = None) -> Placement:
        """Returns what answers a request.

        An arm whose model this replica does not hold assigns nobody: its subjects are answered as if there were no
        experiment, and count for none.

        Args:
            subject: Whose request it is; None for one without a history.
            forced: Arms by experiment that a tester asks for.

        Raises:
            InvalidRequest: There is no such experiment or arm, or this replica does not hold its model.
        """
        if forced:
            return self._forced(subject, forced)
        if self._by is None or subject is None:
            return self._as_for_everybody()
        return self._placed(self._by.of(subject_name(subject))) or self._as_for_everybody()

    def answers(self, subject: Subject) -> tuple[ServedModel, Policies]:
        """Returns the model and the policies that answer a subject, for the work behind events."""
        placement = self.place(subject)
        return placement.model, placement.policies

    def candidate(self, shadow: Experiment) -> Placement | None:
        """Returns what would answer if the candidate of a shadow did; None if its model is not held here."""
        return self._placed(Assigned(chosen=shadow.arms))

    def variant(self, arm: Arm) -> Variant:
        """Returns what of an arm is not as for everybody, where its subjects are in no other experiment."""
        model = None if arm.model == self._serving.model.version else arm.model
        return Variant(model, self._digest(arm.policies or self._policies.current), arm.ranker)

    def _variant(self, model: ServedModel, policies: Policies, ranker: str | None) -> Variant:
        version = None if model.version == self._serving.model.version else model.version
        return Variant(version, self._digest(policies), ranker)

    def _digest(self, policies: Policies) -> str | None:
        """The digest of policies that are not those of everybody."""
        now = self._policies.current
        return None if policies is now or policies.digest == now.digest else policies.digest

    def _as_for_everybody(self) -> Placement:
        return Placement(self._serving.model, self._policies.current)

    def _placed(self, assigned: Assigned, *, forced: bool = False) -> Placement | None:
        """What the arms say; None if a model of theirs is not held here."""
        if assigned is NOTHING:
            return None
        model, policies, ranker = self._serving.model, self._policies.current, None
        if assigned is HELD_OUT:
            holdout = self._document.holdout
            held = None if holdout is None else self._model_of(holdout.model)
            return None if held is None else Placement(held, policies, variant=self._variant(held, policies, None))
        for arm in reversed(assigned.chosen):
            if arm.model is not None:
                held = self._model_of(arm.model)
                if held is None:
                    return None
                model = held
            policies, ranker = arm.policies or policies, arm.ranker or ranker
        return Placement(model, policies, ranker, assigned.arms, self._variant(model, policies, ranker), forced)

    def _forced(self, subject: Subject | None, forced: Mapping[str, str]) -> Placement:
        by = self._by or Assignment(self._document)
        assigned = by.forced(forced, None if subject is None else subject_name(subject))
        if isinstance(assigned, str):
            raise InvalidRequest(assigned, [{"loc": ["arm"], "message": assigned, "type": "unknown_arm"}])
        placed = self._placed(assigned, forced=True)
        if placed is None:
            message = "this replica does not hold the model of that arm (yet); see /ops/experiments"
            raise InvalidRequest(message, [{"loc": ["arm"], "message": message, "type": "arm_not_held"}])
        return placed


def may_answer(document: Document, variant: Variant) -> bool:
    """Returns whether a variant may still answer somebody, by the document in force."""
    arms = [arm for one in document.splits for arm in one.arms]
    models = {arm.model for arm in arms} | ({document.holdout.model} if document.holdout is not None else set())
    policies = {arm.policies.digest for arm in arms if arm.policies is not None}
    return (
        variant.model in models | {None}
        and variant.policies in policies | {None}
        and variant.ranker in {arm.ranker for arm in arms} | {None}
    )
