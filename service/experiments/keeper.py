"""Keeps the document of experiments in force on this replica, and changes it for all of them.

    start      check the description → hold the models of its arms here → write the document, with its audit entry
    stop       the arms end everywhere; what they earned stays readable
    promote    what an arm has becomes what everybody has, then the experiment ends

Changes are compare-and-set on the document's version, and made of what is in force at that moment: two operators, or
two replicas that find the same, do not undo each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from service.common import logs
from service.common.request_errors import Conflict, InvalidRequest, NotFound
from service.coordination.clock import SharedClock
from service.coordination.shared_choice import SharedChoice
from service.experiments import planned
from service.experiments.document import (
    Arm,
    Document,
    Experiment,
    ExperimentError,
    ExperimentSpec,
    HoldOut,
    State,
    parse,
)
from service.lifecycle.held_models import HeldModels, size_of
from service.lifecycle.model_switch import ModelSwitch
from service.policies.policy_keeper import PolicyKeeper

log = logs.get(__name__)

_MIB = 2**20
# Who ends an experiment that broke a guardrail, in the audit.
CANARY = "canary"


class ExperimentKeeper:
    """Follows the shared document; `document` is the one in force.

    Args:
        shared: The document that replicas share.
        held: The models beside the one in service.
        models: Activates the model of an arm that is promoted.
        policies: Puts its policies in force.
        clock: The clock that replicas share.
    """

    def __init__(
        self,
        shared: SharedChoice,
        held: HeldModels,
        models: ModelSwitch,
        policies: PolicyKeeper,
        clock: SharedClock,
    ) -> None:
        self._shared, self.held, self._models, self._policies, self._clock = shared, held, models, policies, clock
        self._observers: list[Callable[[Document], None]] = []
        self.document = in_force(shared)
        shared.subscribe(self._take_over)

    def subscribe(self, observer: Callable[[Document], None]) -> None:
        """Calls `observer` now, and with every document that comes into force."""
        self._observers.append(observer)
        observer(self.document)

    def to_json(self) -> dict[str, Any]:
        """Returns the document, who changed it last, and what is held for it."""
        return {
            "holdout": None if self.document.holdout is None else self.document.holdout.model_dump(),
            "memory": self.held.to_json(),
            **self._shared.choice.to_json(),
            "shared": self._shared.shared,
        }

    def named(self, name: str) -> Experiment:
        """Returns the newest experiment of a name.

        Raises:
            NotFound: There is none.
        """
        found = self.document.named(name)
        if found is None:
            raise NotFound(f"no experiment {name}; there are: {', '.join(e.name for e in self.document.experiments)}")
        return found

    async def plan_start(self, spec: ExperimentSpec) -> dict[str, Any]:
        """Returns what a start would do, without doing it.

        Raises:
            Conflict: The experiment cannot be started beside those that run.
        """
        started = _checked(self.document, spec, self._now_ms()).experiments[-1]
        return await self._planned(planned.start(spec, started), spec.models)

    async def plan_end(self, name: str) -> dict[str, Any]:
        """Returns what the end of an experiment would do. Raises as `end`."""
        experiment = _running(self.document, self.named(name).run, name)
        return await self._planned(planned.end(self.document, experiment, self._models.active))

    async def plan_promotion(self, name: str, arm_name: str) -> dict[str, Any]:
        """Returns what a promotion would do. Raises as `promote`."""
        arm = self._promotable(name, arm_name)
        return await self._planned(planned.promotion(self.document, self.named(name), arm, self._models.active))

    async def plan_holdout(self, holdout: HoldOut | None) -> dict[str, Any]:
        """Returns what a change of the hold-out would do."""
        models = () if holdout is None else (holdout.model,)
        return await self._planned(planned.hold_out(self.document, holdout, self._models.active), models)

    async def start(self, spec: ExperimentSpec, *, actor: str, reason: str | None) -> Experiment:
        """Starts an experiment on every replica. This one holds its models when the call returns.

        Raises:
            Conflict: It cannot be started beside those that run.
            NotFound: This replica does not have a model of it.
            ModelRefused: A model cannot be served, or does not fit the memory.
            InvalidRequest: An arm names ranker weights that its model does not have.
        """
        _checked(self.document, spec, self._now_ms())
        with self.held.reserved(spec.models):
            for version in spec.models:
                await self.held.hold(version)
            self._check_rankers(spec)
            now_ms = self._now_ms()
            details = {"experiment": spec.name, "change": "started", "arms": [arm.name for arm in spec.arms]}
            await self._edit(lambda now: _checked(now, spec, now_ms), actor, reason, details)
        return self.named(spec.name)

    async def end(self, name: str, state: State, *, actor: str, reason: str | None, cause: str | None = None) -> None:
        """Ends a running experiment on every replica.

        Args:
            name: Its name.
            state: Why it ends.
            actor: Name of the operator, for the audit.
            reason: Why, for the audit.
            cause: Why, in the experiment itself.

        Raises:
            NotFound: There is no such experiment.
            Conflict: It does not run.
        """
        run, now_ms = self.named(name).run, self._now_ms()

        def ended(now: Document) -> Document:
            _running(now, run, name)
            return now.changed(run, state=state, ended_at_ms=now_ms, cause=cause)

        details = {"experiment": name, "change": state, "cause": cause}
        await self._edit(ended, actor, reason, details)

    async def advance(self, run: str, step: int, base: int) -> None:
        """Lets the next portion of the subjects into a run.

        Args:
            run: The run.
            step: The step that it is in; nothing happens if another replica was quicker.
            base: Answers of the arm with the fewest.

        Raises:
            Conflict: It does not run any more, or is in another step.
        """

        def advanced(now: Document) -> Document:
            if _running(now, run, run).step != step:
                raise Conflict("another replica was quicker")
            return now.changed(run, step=step + 1, step_base=base)

        await self._edit(advanced, CANARY, None, {"experiment": run.partition(":")[0], "change": f"step {step + 2}"})

    async def promote(self, name: str, arm_name: str, *, actor: str, reason: str | None) -> None:
        """Gives everybody what an arm has, and ends the experiment. The hold-out keeps its model.

        Raises:
            NotFound: There is no such experiment or arm.
            Conflict: It does not run, or the arm has ranker weights, which belong to the artefact.
            ModelRefused: The model cannot be served any more.
        """
        arm = self._promotable(name, arm_name)
        why = reason or f"the experiment {name}"
        if arm.policies is not None:
            await self._policies.set(arm.policies, actor=actor, reason=why)
        if arm.model is not None and arm.model != self._models.active:
            await self._models.activate(arm.model, actor=actor, reason=why)
        await self.end(name, "promoted", actor=actor, reason=reason, cause=f"the arm {arm_name} is what everybody has")

    async def set_holdout(self, holdout: HoldOut | None, *, actor: str, reason: str | None) -> None:
        """Sets or ends the hold-out on every replica. Raises as `start`."""
        versions = () if holdout is None else (holdout.model,)
        with self.held.reserved(versions):
            for version in versions:
                await self.held.hold(version)
            details = {"change": "hold-out", "share": None if holdout is None else holdout.share}
            await self._edit(lambda now: now.model_copy(update={"holdout": holdout}), actor, reason, details)

    def _check_rankers(self, spec: ExperimentSpec) -> None:
        for arm in spec.arms:
            model = self.held.get(arm.model or self._models.active)
            groups = {} if model is None else model.ranker.weights.groups
            if arm.ranker is not None and arm.ranker not in groups:
                raise InvalidRequest(
                    f"the arm {arm.name}: the model has no ranker weights {arm.ranker}; it has {', '.join(groups)}"
                )

    def _promotable(self, name: str, arm_name: str) -> Arm:
        """The arm of a running experiment; raises as `promote`."""
        experiment = self.named(name)
        arm = experiment.arm(arm_name)
        if arm is None:
            raise NotFound(f"{name} has no arm {arm_name}; it has {', '.join(a.name for a in experiment.arms)}")
        if not experiment.running:
            raise Conflict(f"{name} does not run any more: it was {experiment.state}")
        if arm.ranker is not None:
            raise Conflict(
                f"the arm {arm_name} has the ranker weights {arm.ranker} of the artefact: make them the default of an "
                "export, and activate that"
            )
        return arm

    async def _planned(self, would: Sequence[str], versions: Sequence[str] = ()) -> dict[str, Any]:
        """A change as it is shown before it is made: what it would do, and the models that it needs."""
        models = [await self._model(version) for version in versions]
        hold = [
            f"hold the model {one['version']} as well, at least {one['mib']:g} MiB on each replica"
            for one in models
            if not one["here"] and one["fault"] is None
        ]
        faults = [f"{one['version']}: {one['fault']}" for one in models if one["fault"] is not None]
        return {"would": [*would, *hold], "models": models, "memory": self.held.to_json(), "refused": faults}

    async def _model(self, version: str) -> dict[str, Any]:
        told: dict[str, Any] = {
            "version": version,
            "here": self.held.get(version) is not None,
            "mib": 0.0,
            "fault": None,
        }
        try:
            folder = await self.held.folder(version)
            told["mib"] = round(size_of(folder) / _MIB, 1)
            told["fault"] = None if told["here"] else self.held.room_for(folder) or folder.fault
        except NotFound as error:
            told["fault"] = None if told["here"] else str(error)
        return told

    async def _edit(
        self, edit: Callable[[Document], Document], actor: str, reason: str | None, details: dict[str, Any]
    ) -> None:
        def fields(now: dict[str, Any]) -> dict[str, Any]:
            try:
                return edit(parse(now)).model_dump(mode="json", exclude_none=True)
            except ExperimentError as error:
                raise Conflict(str(error)) from None

        await self._shared.edit(fields, actor=actor, reason=reason, details=details)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000.0)

    def _take_over(self) -> None:
        before, self.document = self.document, in_force(self._shared)
        if self.document == before:
            return
        for observer in self._observers:
            observer(self.document)
        was = {one.run: (one.state, one.step) for one in before.experiments}
        for one in self.document.experiments:
            if was.get(one.run) != (one.state, one.step):
                log.info("experiment", name=one.name, state=one.state, step=one.step + 1, cause=one.cause)


def in_force(shared: SharedChoice) -> Document:
    """Returns the document of a shared choice; an empty one if it cannot be read."""
    try:
        return parse(shared.choice.fields)
    except ExperimentError:
        return Document()


def _checked(document: Document, spec: ExperimentSpec, now_ms: int) -> Document:
    try:
        return document.started(spec, now_ms)
    except ExperimentError as error:
        raise Conflict(str(error)) from None


def _running(document: Document, run: str, name: str) -> Experiment:
    for one in document.running:
        if one.run == run:
            return one
    raise Conflict(f"{name} does not run any more")
