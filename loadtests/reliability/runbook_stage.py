"""The stage of a runbook trial: services under load, Prometheus with scaled alert rules, the operator's steps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from deploy.prometheus import rules
from loadtests.chaos.load import RECOMMEND, Load, Seen
from loadtests.harness.faulty_model import Control, faulty
from loadtests.harness.prometheus import Prometheus, prometheus, scaled
from loadtests.harness.served_process import REPOSITORY, Served
from service.artifact.artifact import Artifact
from service.guard.error_budgets import BudgetSettings

T = TypeVar("T")
SCALE = 120.0
RATE = 60.0
BUDGET_MS = 80.0
WELL = 20
GIVE_UP_S = 120.0
_WINDOW = rules.BURNS[0].long
_TOKEN = "runbook-token"  # noqa: S105 - of services that only this process talks to
_SETTINGS = {"GPT4REC_OPS_TOKENS": f"oncall:{_TOKEN}"}
_TOLD = ("mode", "reason", "actor", "shared", "breaker")


class TrialError(RuntimeError):
    """Raised if the trial did not reach a state in time; the message names the state."""


@dataclass(slots=True)
class Stage:
    """The means of a trial and what it has observed so far."""

    artifact: Path
    alert: str
    folder: Path
    stack: ExitStack
    steps: list[dict[str, Any]] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    began: float = 0.0
    services: list[tuple[Served, Control]] = field(default_factory=list)
    _prometheus: Prometheus | None = None
    _load: Load | None = None

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enters a context that ends with the trial."""
        return self.stack.enter_context(context)

    def serve(self, *arguments: str, count: int = 1, **settings: str) -> Control:
        """Starts healthy services under load, with Prometheus beside them.

        Returns:
            The control of the first service's faults.
        """
        for number in range(count):
            own = {**_SETTINGS, "GPT4REC_DATA_DIR": str(self.folder / f"data-{number}"), **settings}
            if "--redis" in arguments:
                self.services.append(self.enter(faulty(self.artifact, *arguments, **own)))
            else:
                self.services.append(self.enter(faulty(self.artifact, *arguments, **{**_SETTINGS, **settings})))
        urls = [one.url for one, _ in self.services]
        text = rules.text(BudgetSettings())
        self._prometheus = self.enter(prometheus(urls, rules=scaled(text, SCALE), token=_TOKEN))
        items = list(Artifact.open(self.artifact).catalogue.item_ids)
        self._load = self.enter(Load(urls, items, rate=RATE))
        self._until(lambda: self._whole(time.perf_counter() - 3.0), "well at first")
        self._until(lambda: not self._firing(), "silent at first")
        return self.services[0][1]

    # -- the trial, in its order

    def fires(self) -> None:
        """Waits until the alert fires."""
        self.began = self.began or time.perf_counter()
        self._until(self._firing, f"{self.alert} fires")
        self._note("fired_after_s")

    def ops(self, *command: str, at: int = 0) -> dict[str, Any]:
        """Runs a step of the entry, `gpt4rec ops …`, as a process against one of the services; returns its answer.

        Raises:
            TrialError: If the command fails.
        """
        line = [sys.executable, "-m", "service.cli", "ops", *command]
        url = self.services[at][0].url
        done = subprocess.run(  # noqa: S603 - our own command
            [*line, "--url", url, "--json"], check=False, capture_output=True, text=True, timeout=60.0,
            cwd=REPOSITORY, env={**os.environ, "GPT4REC_OPS_TOKEN": _TOKEN},
        )  # fmt: skip
        if done.returncode:
            raise TrialError(f"gpt4rec ops {' '.join(command)}: {done.stderr.strip()}")
        said: dict[str, Any] = orjson.loads(done.stdout)
        step = {"command": " ".join(("gpt4rec ops", *map(_quoted, command))), "replica": at}
        self.steps.append({**step, "said": {name: said[name] for name in _TOLD if name in said}})
        return said

    def elsewhere(self, who: str) -> None:
        """Notes a step that is not up to the operator of the service."""
        self.steps.append({"elsewhere": who})

    def spared(self) -> None:
        """Checks that, with the fallback forced, every list of a second comes from below the model and in time.

        Raises:
            TrialError: If one does not.
        """
        since = time.perf_counter() + 0.5
        time.sleep(1.5)
        lists = [one for one in self._lists() if one.due >= since]
        late = [one for one in lists if one.took_s is None or one.took_s * 1e3 > BUDGET_MS]
        if not lists or late or any(one.reason != "forced" for one in lists):
            raise TrialError(f"not spared: {len(late)} of {len(lists)} late, {Counter(one.reason for one in lists)}")

    def silent(self) -> None:
        """Waits until the alert has stopped."""
        self._until(lambda: not self._firing(), f"{self.alert} is over")
        self._note("silent_after_s")

    def well(self) -> None:
        """Waits until lists are whole and in time again."""
        since = time.perf_counter()
        self._until(lambda: self._whole(since), "lists are whole again")
        self._note("well_after_s")

    def tally(self) -> dict[str, Any]:
        """Counts the lists of the trial by outcome."""
        lists = self._lists()
        late = sum(one.took_s is None or one.took_s * 1e3 > BUDGET_MS for one in lists)
        return {
            "lists": len(lists), "late": late, "reasons": dict(Counter(one.reason or "none" for one in lists)),
            "errors": dict(Counter(str(one.status) for one in lists if one.status != 200)),
        }  # fmt: skip

    # -- how

    def _lists(self) -> list[Seen]:
        return [one for one in self._load.seen[:] if one.path == RECOMMEND] if self._load else []

    def _whole(self, since: float) -> bool:
        last = [one for one in self._lists() if one.due >= since][-WELL:]
        return len(last) == WELL and all(one.whole and (one.took_s or 1.0) * 1e3 <= BUDGET_MS for one in last)

    def _firing(self) -> bool:
        assert self._prometheus is not None  # noqa: S101 - the services run
        # The windows of hours and days keep firing for their whole length.
        return any(one.get("window", _WINDOW) == _WINDOW for one in self._prometheus.firing().get(self.alert, ()))

    def _note(self, name: str) -> None:
        self.times[name] = round(time.perf_counter() - self.began, 1)

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        until = time.perf_counter() + GIVE_UP_S
        while not holds():
            if time.perf_counter() > until:
                raise TrialError(f"not in {GIVE_UP_S:.0f} s: {what}")
            time.sleep(0.1)


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word
