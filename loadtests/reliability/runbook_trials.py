"""The trials of docs/runbook.md: the fault of each alert, and the steps of its entry."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from loadtests.common.meanwhile import meanwhile
from loadtests.harness.faulty_model import Control
from loadtests.harness.served_process import REPOSITORY
from loadtests.harness.valkey import TcpValkey
from loadtests.reliability.runbook_stage import Stage, TrialError
from service.artifact.artifact import Artifact
from service.artifact.manifest import MANIFEST
from service.settings.service_settings import DEFAULT_POLICIES


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


def _hung(stage: Stage) -> None:
    policies = stage.folder / "policies.yaml"
    policies.write_bytes(DEFAULT_POLICIES.read_bytes())
    stage.serve(GPT4REC_POLICIES=str(policies))
    hung = stage.folder / "hung"
    os.mkfifo(hung)
    held = os.open(hung, os.O_RDWR)  # whoever reads it waits until this is closed
    hung.replace(policies)
    stage.fires()
    stage.ops("status")
    stage.ops("policies", "set", str(DEFAULT_POLICIES.relative_to(REPOSITORY)), "--reason", "the file cannot be read")
    os.close(held)
    stage.elsewhere("the disk answers again")
    stage.silent()
    stage.well()


TRIALS = (
    Trial("Gpt4recLatencyBudgetBurns", "three decoder runs in ten take 200 ms longer", _late),
    Trial("Gpt4recErrorsBudgetBurns", "a new model is activated, and half of its decoder runs raise", _failing),
    Trial("Gpt4recServedBudgetBurns", "each row takes the decoder 70 ms: the load is too much", _below),
    Trial("Gpt4recModeForced", "a mode is forced and forgotten", _forced),
    Trial("Gpt4recReplicasDisagree", "Redis is killed, and the mode of one of two replicas changed", _apart),
    Trial("Gpt4recBreakerNotClosed", "every decoder run raises", _held),
    Trial("Gpt4recRedisFails", "Redis is stopped (SIGSTOP)", _redis_frozen),
    Trial("Gpt4recFilesHang", "the policies file hangs", _hung),
    Trial("Gpt4recEventsRefused", "Redis is full", _redis_full),
    Trial("Gpt4recDeadlineMissed", "the process gets the processor a quarter of the time", _starved),
)
