"""Tries every entry of docs/runbook.md against its fault: `python -m loadtests.reliability.runbook --artifact DIR`.

A trial runs a service under load, with a real Prometheus that evaluates the alert rules; only their windows
and minimum counts are `SCALE` times smaller, so that hours become half-minutes. The fault is injected and the alert has
to fire. The commands of the entry are run as an operator would (`gpt4rec ops …` as processes). Then the alert has to
stop, and lists have to be whole and in time again. Writes `runbook.json`.

The trial itself does what an operator of the service cannot, at the point where the entry names who does it: thawing
Redis, or stopping the other work on the machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console

from deploy.prometheus import rules
from loadtests.chaos.load import RECOMMEND, Load, Seen
from loadtests.common import results
from loadtests.common.meanwhile import meanwhile
from loadtests.harness.faulty_model import Control, faulty
from loadtests.harness.prometheus import Prometheus, prometheus, scaled
from loadtests.harness.served_process import REPOSITORY, Served
from loadtests.harness.valkey import TcpValkey
from service.artifact.artifact import Artifact
from service.artifact.manifest import MANIFEST
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


@dataclass(frozen=True, slots=True)
class Trial:
    """An alert, the fault that causes it, and the steps of its entry."""

    alert: str
    fault: str
    run: Callable[[Stage], None]


def _late(stage: Stage) -> None:
    control = stage.serve()
    control.set(run_ms=200.0, slow_share=0.3)
    stage.fires()
    _spare_and_return(stage, control)


def _failing(stage: Stage) -> None:
    ill = _two_versions(stage)
    control = stage.serve("--ill", ill)
    stage.ops("models", "activate", ill, "--reason", "a new model")
    control.set(raise_share=0.5)
    stage.fires()
    stage.ops("status")
    stage.ops("models", "list")
    stage.ops("models", "rollback", "--reason", "it fails")
    stage.well()
    stage.silent()


def _two_versions(stage: Stage) -> str:
    """Copies the artefact to a folder of its own, beside a copy with another version; returns that version."""
    root, served = stage.folder / "artifacts", Artifact.open(stage.artifact).model_version
    newer = f"{served}-newer"
    for version in (served, newer):
        shutil.copytree(stage.artifact, root / version)
    manifest = root / newer / MANIFEST
    text = orjson.loads(manifest.read_bytes())
    manifest.write_bytes(orjson.dumps({**text, "model_version": newer}))
    stage.artifact = root / served
    return newer


def _spare_and_return(stage: Stage, control: Control) -> None:
    stage.ops("status")
    stage.ops("fallback", "get")
    stage.ops("fallback", "set", "fallback", "--reason", "the model is ill", "--expires-in-s", "3600")
    stage.spared()
    stage.silent()
    control.set()
    stage.elsewhere("the cause is taken away")
    stage.ops("fallback", "set", "auto", "--reason", "the model is well")
    stage.well()


def _below(stage: Stage) -> None:
    control = stage.serve()
    control.set(row_ms=70.0)
    stage.fires()
    stage.ops("status")
    stage.elsewhere("more replicas: the model bears the load again")
    control.set()
    stage.well()
    stage.silent()


def _forced(stage: Stage) -> None:
    stage.serve()
    stage.ops("fallback", "set", "model", "--reason", "somebody tries something")
    stage.fires()
    stage.ops("fallback", "get")
    stage.ops("audit")
    stage.ops("fallback", "set", "auto", "--reason", "it was forgotten")
    stage.silent()
    stage.well()


def _apart(stage: Stage) -> None:
    valkey = stage.enter(TcpValkey(stage.folder / "valkey"))
    stage.serve("--redis", valkey.url, count=2)
    valkey.kill9()
    stage.ops("fallback", "set", "fallback", "--reason", "Redis is away", at=0)
    stage.fires()
    stage.ops("fallback", "get", at=0)
    stage.ops("fallback", "get", at=1)
    stage.ops("fallback", "set", "auto", "--reason", "one mode everywhere", at=0)
    stage.silent()
    valkey.start()
    stage.elsewhere("Redis is back")
    stage.well()
    if not all(stage.ops("fallback", "get", at=n)["shared"] for n in range(2)):
        raise TrialError("the mode is not shared, though Redis is back")


def _held(stage: Stage) -> None:
    control = stage.serve()
    control.set(raise_share=1.0)
    stage.fires()
    stage.ops("fallback", "get")
    control.set()
    stage.elsewhere("the cause is taken away")
    stage.ops("fallback", "set", "model", "--reason", "the model is well", "--expires-in-s", "60")
    stage.well()
    stage.ops("fallback", "set", "auto", "--reason", "the breaker decides again")
    stage.silent()
    stage.well()


def _redis_frozen(stage: Stage) -> None:
    valkey = stage.enter(TcpValkey(stage.folder / "valkey"))
    stage.serve("--redis", valkey.url)
    valkey.freeze()
    try:
        stage.fires()
        stage.ops("fallback", "get")
    finally:
        valkey.thaw()
    stage.elsewhere("Redis answers again")
    stage.well()
    stage.silent()


def _redis_full(stage: Stage) -> None:
    valkey = stage.enter(TcpValkey(stage.folder / "valkey"))
    stage.serve("--redis", valkey.url)
    valkey.fill_memory()
    stage.fires()
    stage.ops("fallback", "get")
    valkey.free_memory()
    stage.elsewhere("Redis has room again")
    stage.well()
    stage.silent()


def _starved(stage: Stage) -> None:
    stage.serve()
    with _pauses(stage.services[0][0].pid):
        stage.fires()
        stage.ops("fallback", "set", "fallback", "--reason", "the machine is busy", "--expires-in-s", "3600")
        stage.ops("fallback", "get")
    stage.elsewhere("what else ran on the machine is taken away")
    stage.silent()
    stage.ops("fallback", "set", "auto", "--reason", "the machine is free")
    stage.well()


@contextmanager
def _pauses(pid: int, stop_s: float = 0.15, run_s: float = 0.05) -> Iterator[None]:
    """Stops the process three quarters of the time, in pieces."""

    def pause(over: threading.Event) -> None:
        while not over.wait(run_s):
            os.kill(pid, signal.SIGSTOP)
            over.wait(stop_s)
            os.kill(pid, signal.SIGCONT)

    with meanwhile(pause):
        yield


TRIALS = (
    Trial("Gpt4recLatencyBudgetBurns", "three decoder runs in ten take 200 ms longer", _late),
    Trial("Gpt4recErrorsBudgetBurns", "a new model is activated, and half of its decoder runs raise", _failing),
    Trial("Gpt4recServedBudgetBurns", "each row takes the decoder 70 ms: the load is too much", _below),
    Trial("Gpt4recModeForced", "a mode is forced and forgotten", _forced),
    Trial("Gpt4recReplicasDisagree", "Redis is killed, and the mode of one of two replicas changed", _apart),
    Trial("Gpt4recBreakerNotClosed", "every decoder run raises", _held),
    Trial("Gpt4recRedisFails", "Redis is stopped (SIGSTOP)", _redis_frozen),
    Trial("Gpt4recEventsRefused", "Redis is full", _redis_full),
    Trial("Gpt4recDeadlineMissed", "the process gets the processor a quarter of the time", _starved),
)


def tried(trial: Trial, artifact: Path) -> dict[str, Any]:
    """Runs a trial and returns its row: whether it holds, the steps, and when each state was reached."""
    with tempfile.TemporaryDirectory(prefix="gpt4rec-runbook-") as folder, ExitStack() as stack:
        stage = Stage(artifact, trial.alert, Path(folder), stack)
        fault = ""
        try:
            trial.run(stage)
        except TrialError as error:
            fault = str(error)
        return {
            "alert": trial.alert, "fault": trial.fault, "holds": not fault, "broken": fault, **stage.times,
            "steps": stage.steps, **stage.tally(),
        }  # fmt: skip


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    only: Annotated[
        str, typer.Option(help="Only trials of alerts whose name contains this; the rows of the others stay.")
    ] = "",
) -> None:
    """Tries the entries of the runbook; exits with 1 if one does not lead to a healthy service."""
    console = Console()
    file = out / "runbook.json"
    kept = {row["alert"]: row for row in orjson.loads(file.read_bytes())["trials"]} if file.exists() else {}
    for trial in TRIALS:
        if only.lower() in trial.alert.lower():
            row = kept[trial.alert] = tried(trial, artifact)
            console.print(
                trial.alert, "holds" if row["holds"] else f"BROKEN: {row['broken']}", row.get("fired_after_s")
            )
    rows = [kept[trial.alert] for trial in TRIALS if trial.alert in kept]
    command = "python -m loadtests.reliability.runbook --artifact ARTIFACT"
    results.save("runbook", {"scale": SCALE, "rate": RATE, "trials": rows}, command=command, folder=out)
    raise typer.Exit(0 if all(row["holds"] for row in rows) else 1)


if __name__ == "__main__":
    typer.run(main)
