"""Counts what the arms answer, and acts on it: a canary takes its next step, or goes back.

Every replica adds its counts to those of all, about once a second, and every replica judges them; the first one to
write its verdict wins. While Redis is away a replica judges by its own counts alone, so that a canary which only fails
ends here too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.common.request_errors import Conflict, NotFound
from service.experiments.canary import judge
from service.experiments.counts import ArmCounts, Counts
from service.experiments.document import Document, Experiment
from service.experiments.keeper import CANARY, ExperimentKeeper
from service.experiments.sums import Sums
from service.metrics.service_metrics import Metrics

_PERIOD_S = 1.0
# How often the hash of the sink is read.
_SUMS_S = 10.0

_Counts = Counter[tuple[str, str]]


class CanaryWatch:
    """Watches the running experiments; start `run` as a background task.

    Args:
        keeper: Has the document, and changes it.
        counts: What is known of the arms, of all replicas.
        metrics: Counts lists by experiment and arm.
    """

    def __init__(
        self, keeper: ExperimentKeeper, counts: Counts, metrics: Metrics, clock: Clock = time.monotonic
    ) -> None:
        self._keeper, self._counts, self._metrics = keeper, counts, metrics
        self._clock = clock
        self._sums: dict[str, tuple[float, dict[str, Sums]]] = {}
        self._runs: dict[str, str] = {}  # by name of the experiment
        self._own: dict[str, _Counts] = {}
        self._unsent: dict[str, _Counts] = {}
        self._shown: set[tuple[str, str, str]] = set()
        keeper.subscribe(self._follow)

    def answered(self, arms: Mapping[str, str], *, late: bool, failed: bool, below: bool) -> None:
        """Counts a list for the arms of its subject.

        Args:
            arms: Arm by experiment.
            late: Whether its deadline had passed.
            failed: Whether an attempt at the model failed.
            below: Whether it came from below the model.
        """
        for name, arm in arms.items():
            run = self._runs.get(name)
            if run is None:
                continue
            happened = [what for what, so in (("late", late), ("failed", failed), ("below", below)) if so]
            for counts in (self._own[run], self._unsent.setdefault(run, Counter())):
                counts.update([(arm, "answers"), *((arm, what) for what in happened)])
            for outcome in happened or ["ok"]:
                self._shown.add((name, arm, outcome))
                self._metrics.experiments.lists.labels(name, arm, outcome).inc()

    def shadowed(self, name: str, arm: str, counts: Mapping[str, int]) -> None:
        """Counts what became of a request of a shadow.

        Args:
            name: The experiment.
            arm: Its candidate.
            counts: Numbers by name.
        """
        run = self._runs.get(name)
        if run is not None:
            self._unsent.setdefault(run, Counter()).update({(arm, what): n for what, n in counts.items()})

    async def run(self) -> None:
        """Sends counts and judges, until cancelled."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            await self.look()

    async def look(self) -> None:
        """Sends the counts of this replica, and judges the running experiments once."""
        with contextlib.suppress(StoreUnavailable):
            await self._send()
        for experiment in self._keeper.document.running:
            if experiment.guardrails is not None:
                await self._judge(experiment)

    async def read(self, experiments: Sequence[Experiment]) -> dict[str, dict[str, ArmCounts]] | None:
        """Returns what is known of the arms of each run now; None while Redis is away."""
        try:
            sums = await self._counts.sums(experiments) if experiments else {}
            return {one.run: await self._counts.read(one, sums[one.run]) for one in experiments}
        except StoreUnavailable:
            return None

    async def _known(self, experiment: Experiment) -> dict[str, ArmCounts] | None:
        """The same, with clicks that may be some seconds old: the hash of the sink is large."""
        read_at, sums = self._sums.get(experiment.run, (-_SUMS_S, {}))
        try:
            if (now := self._clock()) - read_at >= _SUMS_S:
                sums = (await self._counts.sums([experiment]))[experiment.run]
                self._sums[experiment.run] = (now, sums)
            return await self._counts.read(experiment, sums)
        except StoreUnavailable:
            return None

    async def _send(self) -> None:
        for run in list(self._unsent):
            counts = self._unsent.pop(run)
            try:
                await self._counts.add(run, counts)
            except StoreUnavailable:
                # It may have been written; counted twice, a second's answers have the same shares.
                counts.update(self._unsent.get(run, Counter()))
                self._unsent[run] = counts
                raise

    async def _judge(self, experiment: Experiment) -> None:
        counts = await self._known(experiment)
        verdict = judge(experiment, counts if counts is not None else self._counted_here(experiment.run))
        with contextlib.suppress(Conflict, NotFound):
            if verdict.action == "back":
                await self._keeper.end(
                    experiment.name, "returned", actor=CANARY, reason=verdict.cause, cause=verdict.cause
                )
            elif verdict.action == "advance" and counts is not None:
                await self._keeper.advance(experiment.run, experiment.step, verdict.base)

    def _counted_here(self, run: str) -> dict[str, ArmCounts]:
        own = self._own.get(run, Counter())
        return {
            arm: ArmCounts.of({name: n for (of, name), n in own.items() if of == arm})
            for arm in {arm for arm, _ in own}
        }

    def _follow(self, document: Document) -> None:
        self._runs = {one.name: one.run for one in document.running}
        self._sums = {run: read for run, read in self._sums.items() if run in self._runs.values()}
        self._own = {run: self._own.get(run, Counter()) for run in self._runs.values()}
        for labels in [labels for labels in self._shown if labels[0] not in self._runs]:
            self._shown.discard(labels)
            with contextlib.suppress(KeyError):
                self._metrics.experiments.lists.remove(*labels)
