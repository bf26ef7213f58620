"""What is known of the arms of an experiment: what the replicas answered, and what the sink of the log says it earned.

    {ops}:counts:<run>      <arm>:<count> → number          answers, late, failed, below
    {ops}:outcomes          what the sink writes (`service.experiments.outcomes`)

Replicas add what they answered to a hash of each run: four numbers for each arm, and some more for the candidate of a
shadow. It expires 90 days after the last write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from service.experiments.document import Experiment
from service.experiments.outcomes import of_arms, unpacked
from service.experiments.sums import Sums

ANSWERED = ("answers", "late", "failed", "below")
_KEPT_S = 90 * 86_400


class _OutcomeFields(Protocol):
    async def read(self) -> dict[str, bytes]: ...


class CountStore(Protocol):
    """The part of `service.store.store.Store` that counts need. Every method raises StoreUnavailable."""

    @property
    def outcomes(self) -> _OutcomeFields:
        """What the sink of the log writes."""
        ...

    async def add_counts(self, name: str, counts: Mapping[str, int], ttl_s: int) -> None:
        """Adds to counts."""
        ...

    async def read_counts(self, name: str) -> dict[str, int]:
        """Returns all counts of a name; empty if there are none."""
        ...


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """What is known of an arm.

    Attributes:
        answers: Lists that the replicas made.
        late: Those that left after their deadline.
        failed: Those whose attempt at the model failed.
        below: Those from below the model, whatever the cause.
        sums: Lists and clicks of its subjects, as the sink joined them.
        shadow: What was counted of a candidate that nobody sees (`service.experiments.shadow_counts`).
    """

    answers: int = 0
    late: int = 0
    failed: int = 0
    below: int = 0
    sums: Sums = field(default_factory=Sums)
    shadow: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, counts: Mapping[str, int], sums: Sums | None = None) -> Self:
        """Returns the counts of one arm by name, with its sums."""
        shadow = {name: n for name, n in counts.items() if name not in ANSWERED}
        return cls(**{name: counts.get(name, 0) for name in ANSWERED}, sums=sums or Sums(), shadow=shadow)


class Counts:
    """Reads and writes what is known of arms. Every method that talks to Redis raises StoreUnavailable."""

    def __init__(self, store: CountStore) -> None:
        self._store = store

    async def add(self, run: str, counts: Mapping[tuple[str, str], int]) -> None:
        """Adds what this replica answered.

        Args:
            run: The run of the experiment.
            counts: Numbers by arm and name.
        """
        if counts:
            flat = {f"{arm}:{name}": n for (arm, name), n in counts.items()}
            await self._store.add_counts(f"counts:{run}", flat, _KEPT_S)

    async def sums(self, experiments: Sequence[Experiment]) -> dict[str, dict[str, Sums]]:
        """Returns what each arm of each run earned from the day of its start on, as the sink joined it.

        The hash of the sink is large, and read once.
        """
        found = unpacked(await self._store.outcomes.read())
        earned = {}
        for one in experiments:
            arms = of_arms(found, one.name, since_s=one.started_at_ms / 1000)
            earned[one.run] = {arm: outcomes.sums for arm, outcomes in arms.items()}
        return earned

    async def read(self, experiment: Experiment, sums: Mapping[str, Sums]) -> dict[str, ArmCounts]:
        """Returns what is known of each arm.

        Args:
            experiment: The experiment.
            sums: What each arm earned.
        """
        by_arm: dict[str, Counter[str]] = {arm.name: Counter() for arm in experiment.arms}
        for name, n in (await self._store.read_counts(f"counts:{experiment.run}")).items():
            arm, _, count = name.partition(":")
            if arm in by_arm:
                by_arm[arm][count] += n
        return {arm: ArmCounts.of(counts, sums.get(arm)) for arm, counts in by_arm.items()}
