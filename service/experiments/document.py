"""The document of all experiments: what operators share between the replicas. Pure.

A layer is a partition of all subjects into 10,000 buckets. Layers are drawn independently, so a subject may be in one
experiment of each. Experiments of one layer have buckets of their own, so a subject is in one of them at most. Within
an experiment each arm has a part of the subjects, of which the portion of the present step is let in: parts grow at
their ends, so nobody who is in an arm ever leaves it for another, and the arms always have the same proportion.

A shadow is an experiment that nobody sees. It has one arm, the candidate, on which a share of the requests is run as
well, behind their answers. It is in no layer.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.common.errors import ServiceError
from service.policies.policies import Policies

BUCKETS = 10_000
RUNNING_MAX = 8
# Experiments that have ended stay in the document until newer ones push them out; the audit keeps all.
KEPT_MAX = 24
_DAY_MS = 86_400_000

Kind = Literal["split", "shadow"]
State = Literal["running", "stopped", "returned", "promoted"]
_NAME = r"^[a-z][a-z0-9_-]{0,31}$"


class ExperimentError(ServiceError):
    """The document of experiments is not valid."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Arm(_Part):
    """One arm. What it leaves out is as for everybody."""

    name: str = Field(pattern=_NAME, description="Name, also a metric label.")
    share: float = Field(1.0, gt=0, le=1, description="Its part of the subjects of the experiment.")
    model: str | None = Field(None, min_length=1, max_length=128, description="The model version that answers.")
    policies: Policies | None = Field(None, description="The decoding policies.")
    ranker: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_]{0,31}$",
        description="The group of ranker weights of the artefact by which lists are ranked, whatever the segment.",
    )

    @property
    def changes(self) -> bool:
        """Whether anything is not as for everybody."""
        return self.model is not None or self.policies is not None or self.ranker is not None


class Guardrails(_Part):
    """What an arm must not be worse at than the first one. Each is the excess of its share that is tolerated."""

    late: float = Field(0.02, ge=0, le=1, description="Excess of answers after their deadline.")
    failed: float = Field(0.01, ge=0, le=1, description="Excess of lists whose attempt at the model failed.")
    below: float = Field(0.05, ge=0, le=1, description="Excess of lists from below the model.")
    click_through: bool = Field(True, description="Whether fewer clicks, by the sequential test, end it as well.")


class ExperimentSpec(_Part):
    """An experiment as an operator describes it. The first arm is the control."""

    name: str = Field(pattern=_NAME, description="Name, also a metric label.")
    kind: Kind = Field(
        "split",
        description="split: the arms answer. shadow: the only arm is a candidate that answers nobody, and is compared "
        "with what was shown.",
    )
    layer: str = Field("default", pattern=_NAME, description="Experiments of a layer share no subject.")
    salt: str | None = Field(
        None, min_length=1, max_length=64, description="Draws the arms. The name, if it is left out."
    )
    share: float = Field(
        1.0, gt=0, le=1, description="Its share of the subjects of the layer; of the requests for a shadow."
    )
    arms: tuple[Arm, ...] = Field(
        min_length=1,
        max_length=4,
        description="The arms; the first one is the control. A shadow has one: the candidate.",
    )
    steps: tuple[float, ...] = Field(
        (1.0,),
        min_length=1,
        max_length=10,
        description="A canary lets a portion of each arm in, which grows by these steps: above 0, ascending, up to 1.",
    )
    step_lists: int = Field(
        1000, ge=1, description="Lists of each arm in a step before the next one; all guardrails hold until then."
    )
    guardrails: Guardrails | None = Field(
        None, description="An experiment with guardrails is ended by itself when an arm breaks one."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [arm.name for arm in self.arms]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the arm {repeated[0]} is there twice")
        total = sum(arm.share for arm in self.arms)
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the shares of the arms add up to {total:g}, and must add up to 1")
        if self.kind == "shadow":
            self._check_shadow()
        elif len(self.arms) < 2:
            raise ValueError("arms must be at least 2: the first one is the control")
        if any(not 0.0 < step <= 1.0 for step in self.steps) or list(self.steps) != sorted(set(self.steps)):
            raise ValueError("steps must be above 0, at most 1, and ascending")
        if len(self.steps) > 1 and self.guardrails is None:
            raise ValueError("an experiment with steps needs guardrails: {} takes the defaults")
        if self.kind == "split" and round(self.share * BUCKETS) < 1:
            raise ValueError(f"a share below {1 / BUCKETS:g} has no subjects")
        return self

    def _check_shadow(self) -> None:
        if len(self.arms) > 1:
            raise ValueError("a shadow has one arm, the candidate: what is shown is what it is compared with")
        if not self.arms[0].changes:
            raise ValueError("the candidate of a shadow is as for everybody: name a model, policies or ranker weights")
        if self.steps != (1.0,) or self.guardrails is not None or self.layer != "default":
            raise ValueError("a shadow answers nobody, so it has no steps, no guardrails and no layer")

    @property
    def models(self) -> tuple[str, ...]:
        """The versions that its arms name."""
        return tuple(dict.fromkeys(arm.model for arm in self.arms if arm.model is not None))


class Experiment(ExperimentSpec):
    """An experiment that was started."""

    salt: str = Field(min_length=1, max_length=64, description="Draws the arms.")
    run: str = Field(description="Names this run, and its counts: two runs of one name are counted apart.")
    buckets: tuple[int, int] = Field(description="Its buckets in the layer, the end exclusive; none for a shadow.")
    state: State = "running"
    step: int = Field(0, ge=0, description="The present step, from 0.")
    step_base: int = Field(0, ge=0, description="Lists that the smallest arm had when the step began.")
    started_at_ms: int
    ended_at_ms: int | None = None
    cause: str | None = Field(None, description="Why it has ended.")

    @property
    def running(self) -> bool:
        """Whether it assigns arms."""
        return self.state == "running"

    @property
    def portion(self) -> float:
        """The portion of each arm that is let in."""
        return self.steps[min(self.step, len(self.steps) - 1)]

    def arm(self, name: str) -> Arm | None:
        """Returns an arm; None if there is none of this name."""
        return next((arm for arm in self.arms if arm.name == name), None)


class HoldOut(_Part):
    """Subjects that are in no experiment and keep an old model, so that all later changes can be judged together."""

    share: float = Field(gt=0, le=0.5, description="Share of all subjects.")
    model: str = Field(min_length=1, max_length=128, description="The version that answers them.")
    salt: str = Field("hold-out", min_length=1, max_length=64)


class Document(_Part):
    """All experiments, and the hold-out."""

    format: Literal[1] = 1
    experiments: tuple[Experiment, ...] = Field((), max_length=RUNNING_MAX + KEPT_MAX)
    holdout: HoldOut | None = None

    @property
    def running(self) -> tuple[Experiment, ...]:
        """The experiments that assign arms."""
        return tuple(one for one in self.experiments if one.running)

    @property
    def splits(self) -> tuple[Experiment, ...]:
        """Those of them whose arms answer."""
        return tuple(one for one in self.running if one.kind == "split")

    @property
    def shadows(self) -> tuple[Experiment, ...]:
        """Those of them that nobody sees."""
        return tuple(one for one in self.running if one.kind == "shadow")

    @property
    def models(self) -> tuple[str, ...]:
        """The versions that must be held beside the one in service."""
        wanted = [model for one in self.running for model in one.models]
        wanted += [] if self.holdout is None else [self.holdout.model]
        return tuple(dict.fromkeys(wanted))

    def named(self, name: str) -> Experiment | None:
        """Returns the newest experiment of a name; None if there is none."""
        return next((one for one in reversed(self.experiments) if one.name == name), None)

    def started(self, spec: ExperimentSpec, now_ms: int) -> Document:
        """Returns the document with an experiment more.

        Args:
            spec: What the operator wants.
            now_ms: Time of the start, in epoch milliseconds.

        Raises:
            ExperimentError: One of its name runs, too many run, its layer has too few buckets left, or an experiment of
                another layer decides the same.
        """
        if (same := self.named(spec.name)) is not None and same.running:
            raise ExperimentError(f"the experiment {spec.name} is running: stop it first")
        if spec.kind == "split" and self._ran_on(spec.name, now_ms // _DAY_MS):
            raise ExperimentError(
                f"an experiment {spec.name} ran today, and clicks are told apart by name: take another"
            )
        if len(self.running) >= RUNNING_MAX:
            raise ExperimentError(f"{RUNNING_MAX} experiments are running: stop one first")
        for other in self.splits if spec.kind == "split" else ():
            if other.layer != spec.layer and (both := _names(spec) & _names(other)):
                raise ExperimentError(
                    f"arms of {other.name} in the layer {other.layer} name {' and '.join(sorted(both))} too, and a "
                    f"subject may be in both: use its layer, {other.layer}"
                )
        buckets = self._free(spec.layer, round(spec.share * BUCKETS)) if spec.kind == "split" else (0, 0)
        fields = spec.model_dump(exclude_none=True)
        made = Experiment.model_validate(
            {
                **fields,
                "salt": spec.salt or spec.name,
                "run": f"{spec.name}:{now_ms}",
                "buckets": buckets,
                "started_at_ms": now_ms,
            }
        )
        ended = [one for one in self.experiments if not one.running][-(KEPT_MAX - 1) :]
        kept = [one for one in self.experiments if one.running or one in ended]
        return self.model_copy(update={"experiments": (*kept, made)})

    def changed(self, run: str, **changes: Any) -> Document:
        """Returns the document with changes to one run."""
        experiments = tuple(one.model_copy(update=changes) if one.run == run else one for one in self.experiments)
        return self.model_copy(update={"experiments": experiments})

    def _ran_on(self, name: str, day: int) -> bool:
        """Whether arms of an experiment of this name answered on a day (UTC, since the epoch)."""
        mine = (one for one in self.experiments if one.name == name and one.kind == "split")
        return any(
            day in (one.started_at_ms // _DAY_MS, (one.ended_at_ms or one.started_at_ms) // _DAY_MS) for one in mine
        )

    def _free(self, layer: str, width: int) -> tuple[int, int]:
        """The first gap of a layer that is wide enough."""
        start = 0
        there = [one for one in self.splits if one.layer == layer]
        taken = sorted(one.buckets for one in there)
        for low, high in (*taken, (BUCKETS, BUCKETS)):
            if low - start >= width:
                return start, start + width
            start = max(start, high)
        left = BUCKETS - sum(high - low for low, high in taken)
        others = ", ".join(one.name for one in there)
        raise ExperimentError(
            f"the layer {layer} has {left / BUCKETS:.2%} of the subjects left, not in one piece of "
            f"{width / BUCKETS:.2%}: {others} has the others; take a smaller share or another layer"
        )


def _names(spec: ExperimentSpec) -> set[str]:
    """What the arms of an experiment decide: models, policies, ranker weights."""
    named = {"a model": "model", "policies": "policies", "ranker weights": "ranker"}
    return {words for words, field in named.items() if any(getattr(arm, field) is not None for arm in spec.arms)}


def parse(fields: Any) -> Document:
    """Reads a document.

    Raises:
        ExperimentError: It is not valid; the message has the place of every fault.
    """
    try:
        return Document.model_validate(fields or {})
    except ValidationError as error:
        raise ExperimentError(faults_of(error)) from None


def faults_of(error: ValidationError) -> str:
    """Returns the faults of a document with their places, such as `experiments[0].arms[1].share: …`."""

    def place(loc: tuple[int | str, ...]) -> str:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
        return steps.lstrip(".") or "experiment"

    return "; ".join(f"{place(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False))


def usable(fields: dict[str, Any]) -> bool:
    """Returns whether this release can use the shared document."""
    try:
        parse(fields)
    except ExperimentError:
        return False
    return True
