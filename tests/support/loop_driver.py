"""Runs the loop's process again and again, with stand-ins for the commands, and kills it where it is told to.

    python -m tests.support.loop_driver CONFIG

CONFIG is JSON: `settings` of the loop, `url`, `token`, and `candidate`, the artefact that the stand-in of `export`
gives. A line of standard input is JSON. One with `crash`, a point such as `train:before` or `train:inside`, or null,
is a start, which is answered with the number of its process. One with `wait` and such a number is answered with the
exit code, negative for a signal. The modules are loaded once: every start is a fork.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.loop.run import process
from deploy.loop.run import service as service_module
from deploy.loop.run.gpt4rec import Done
from deploy.loop.run.locks import LockedError
from service.common import logs
from service.metrics.loop_metrics import LoopMetrics
from service.settings.loop_settings import LoopSettings
from service.settings.service_settings import Settings

CRASH: list[str | None] = [None]
CANDIDATE: list[Path] = []


def here(point: str) -> None:
    """Ends the process as a crash would, if this is the place."""
    if CRASH[0] == point:
        os.kill(os.getpid(), signal.SIGKILL)


class StandIns:
    """Writes what the commands would write; each crashes when half of it is there."""

    def __init__(self, _: int) -> None:
        pass

    async def run(self, arguments: Sequence[str], messages: Path, *, timeout_s: float | None = None) -> Done:
        del timeout_s
        options = dict(itertools.pairwise(arguments))
        name = "sink" if arguments[0] == "loop" else arguments[0]
        messages.parent.mkdir(parents=True, exist_ok=True)
        with messages.open("a") as file:
            file.write(f"{name}\n")
        output = getattr(self, f"_{name}")(options, "--resume" in arguments)
        here(f"{name}:inside")
        return Done(name, 0, json.dumps(output), messages)

    def _sink(self, _: dict[str, str], __: bool) -> Any:
        return {}

    def _data(self, options: dict[str, str], _: bool) -> Any:
        Path(options["--out"]).mkdir(parents=True, exist_ok=True)
        return {"new": 1000}

    def _train(self, options: dict[str, str], resumed: bool) -> Any:
        folder = Path(options["--out"])
        assert resumed == (folder / "checkpoint.safetensors").exists()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoint.safetensors").touch()
        here("train:inside")
        (folder / "run.json").write_text(json.dumps({"data": {"path": options["--data"]}}))
        (folder / "metrics.json").write_text("{}")
        return {}

    def _export(self, options: dict[str, str], _: bool) -> Any:
        target = Path(options["--out"]) / CANDIDATE[0].name
        target.mkdir(parents=True)
        here("export:inside")
        shutil.copytree(CANDIDATE[0], target, dirs_exist_ok=True)
        return {"artifact": str(target)}

    def _gate(self, options: dict[str, str], _: bool) -> Any:
        assert Path(options["--champion"], "manifest.json").exists()
        here("gate:inside")
        Path(options["--json"]).write_text(json.dumps({"passed": True, "faults": []}))
        return {}


class Killed(service_module.Service):
    """Asks the service, and crashes when it has answered, but nobody knows yet."""

    async def models(self) -> dict[str, Any]:
        found = await super().models()
        here("begin:inside")
        return found

    async def start(self, spec: Any) -> None:
        await super().start(spec)
        here("canary:inside")

    async def promote(self, name: str, arm: str, reason: str) -> None:
        await super().promote(name, arm, reason)
        here("promote:inside")


def start(config: dict[str, Any], told: dict[str, Any]) -> int:
    """Starts the loop in this process."""
    CRASH[0] = told["crash"]
    if told["crash"] == "publish:inside":
        shutil.copytree = lambda *_, **__: here("publish:inside")  # type: ignore[assignment]
    logs.configure("error")
    settings = LoopSettings(**{**config["settings"], **told.get("settings", {})})
    try:
        return process.run(
            Settings(), settings, config["url"], config["token"], lambda _: None, once=True, kind="increment"
        )  # fmt: skip
    except LockedError:
        return 4


def entered(_: LoopMetrics, step: str | None) -> None:
    here(f"{step}:before")


def main() -> None:
    config = json.loads(sys.argv[1])
    CANDIDATE.append(Path(config["candidate"]))
    for name, stand_in in (("Processes", StandIns), ("Service", Killed)):
        assert hasattr(process, name)
        setattr(process, name, stand_in)
    LoopMetrics.enter = entered  # type: ignore[method-assign,assignment]
    for line in sys.stdin:
        told = json.loads(line)
        if "wait" in told:
            answer = os.waitstatus_to_exitcode(os.waitpid(told["wait"], 0)[1])
        elif not (answer := os.fork()):
            os._exit(start(config, told))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
