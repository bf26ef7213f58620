"""A loop around a service and commands that do what a test says, with a clock of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry

from deploy.loop.run.gpt4rec import Done
from deploy.loop.run.journal import Cycle, Journal, iso
from deploy.loop.run.loop import Loop
from deploy.loop.run.schedule import Schedule
from deploy.loop.run.service import Service, ServiceAwayError, ServiceRefusedError
from deploy.loop.run.world import World
from service.metrics.loop_metrics import LoopMetrics
from service.settings.loop_settings import LoopSettings

NOW = 1_800_000_000.0


def begun(kind: Any, at: float, **more: Any) -> Cycle:
    name = datetime.fromtimestamp(at, UTC).strftime("%Y%m%d-%H%M%S")
    return Cycle(name, kind, iso(at), **more)


class FakeService:
    """A service that serves `old`, and whose canary does what `states` says, one look after the other."""

    def __init__(self, *states: Mapping[str, Any]) -> None:
        self.active, self.states, self.asked = "old", list(states), [""]
        self.refuses = self.started = False

    async def close(self) -> None:
        pass

    async def models(self) -> dict[str, Any]:
        return {"active": self.active, "previous": None, "chosen": None, "replicas": None}

    async def experiments(self) -> dict[str, Any]:
        return {"experiments": [], "holdout": None}

    async def experiment(self, _: str) -> dict[str, Any] | None:
        if not self.started:
            return None
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if "away" in state:
            raise ServiceAwayError("away")
        none = dict.fromkeys(("late", "failed", "below", "lists", "click_through", "comparison"))
        answers = state.get("answers", 0)
        counted = {**none, "answers": answers, "clicked": state.get("clicked", 0)}
        arms = [{"name": name, **counted} for name in ("champion", "candidate")]
        return {"state": "running", "cause": None, "step": 1, "steps": [0.1, 1.0], "portion": 0.1, "counted": True,
                "arms": arms, "shares_mismatch": False, **state}  # fmt: skip

    async def start(self, spec: Mapping[str, Any]) -> None:
        assert [arm["model"] for arm in spec["arms"]] == ["old", "new"]
        self.started = True

    async def stop(self, _: str, reason: str) -> None:
        self.asked.append(f"stop: {reason}")

    async def promote(self, _: str, arm: str, __: str) -> None:
        if self.refuses:
            raise ServiceRefusedError(422, "it is damaged", "here")
        self.asked.append(f"promote {arm}")
        self.active = "new"


class FakeRunner:
    """Commands that write what they should, but for those that fail."""

    def __init__(self) -> None:
        self.new, self.passed, self.fails, self.ran = 1000, True, {"": 0}, [""]

    async def run(self, arguments: Sequence[str], messages: Path, *, timeout_s: float | None = None) -> Done:
        del timeout_s
        return self._ran(arguments, messages)

    def _ran(self, arguments: Sequence[str], messages: Path) -> Done:
        name, options = arguments[0], dict(itertools.pairwise(arguments))
        self.ran.append(" ".join(arguments))
        messages.parent.mkdir(parents=True, exist_ok=True)
        if self.fails.get(name, 0):
            self.fails[name] -= 1
            messages.write_text("the disk is full")
            return Done(f"gpt4rec {name}", 1, "", messages)
        if name == "train":
            folder = Path(options["--out"])
            folder.mkdir()
            (folder / "run.json").write_text(json.dumps({"data": {"path": options["--data"]}}))
            (folder / "metrics.json").touch()
        if name == "export":
            made = Path(options["--out"]) / "new"
            made.mkdir(parents=True)
            (made / "manifest.json").touch()
            return Done(name, 0, json.dumps({"artifact": str(made)}), messages)
        if name == "gate":
            verdict = {"passed": self.passed, "faults": [] if self.passed else ["recall@10 lost 9 %"]}
            Path(options["--json"]).write_text(json.dumps(verdict))
            return Done(name, 0 if self.passed else 1, "", messages)
        return Done(name, 0, json.dumps({"new": self.new}), messages)


class Scene:
    def __init__(self, folder: Path, *states: Mapping[str, Any], **more: Any) -> None:
        self.service, self.runner, self.now = FakeService(*(states or ({},))), FakeRunner(), NOW
        (folder / "models" / "old").mkdir(parents=True)
        (folder / "models" / "old" / "manifest.json").write_text('{"data": {"fingerprint": "f"}}')
        (folder / "run").mkdir()
        (folder / "run" / "run.json").write_text('{"data": {"path": "base", "fingerprint": "f"}}')
        (folder / "run" / "config.json").write_text("{}")
        given = {"loop_canary_lists": 10, "loop_canary_clicked": 0, "loop_canary_steps": "0.1,1", **more}
        given.setdefault("loop_attempts", 2)
        self.own = own = LoopSettings(
            loop_work=str(folder / "work"), loop_log="log", loop_artifacts=str(folder / "models"),
            loop_run=str(folder / "run"), **given,
        )  # fmt: skip
        self.paused: Callable[[], None] = lambda: None
        self.journal, self.metrics = Journal(folder / "work"), LoopMetrics(CollectorRegistry())
        self.world = world = World(
            own, self.journal, self.runner, cast("Service", self.service), lambda: self.now, self._pause
        )
        self.loop = Loop(world, Schedule.of(60, "03:00"), self.metrics)

    async def _pause(self, seconds: float) -> None:
        self.now += seconds
        self.paused()

    def cycle(self, kind: Any = "increment") -> Cycle:
        return asyncio.run(self.loop.once(kind))
