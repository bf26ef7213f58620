"""Bodies of operators' requests: a change, and the reason for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from service.experiments.document import ExperimentSpec, HoldOut
from service.policies.policies import Policies
from service.schemas.body import Body
from service.schemas.values import Name

Why = Annotated[str, Field(min_length=1, max_length=500)]


class FallbackRequest(Body):
    """Forces a mode, or returns to `auto`."""

    mode: Literal["auto", "fallback", "model"]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    expires_in_s: float | None = Field(None, gt=0, le=31_536_000, allow_inf_nan=False)


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
