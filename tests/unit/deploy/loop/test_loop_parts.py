"""The parts of the loop: when cycles are due, what the journal keeps, how cycles end, what is deleted."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from typer.main import get_command

from deploy.loop.command import app as loop_app
from deploy.loop.run.cycle import AttemptError
from deploy.loop.run.gpt4rec import Done, Processes
from deploy.loop.run.journal import Cycle, Journal, iso, seconds_of
from deploy.loop.run.locks import LockedError, commands, holder, sole
from deploy.loop.run.loop import Loop
from deploy.loop.run.retention import to_forget
from deploy.loop.run.schedule import Schedule
from deploy.loop.run.service import Service, ServiceAwayError, ServiceRefusedError, token_of
from deploy.loop.run.telling import status, status_lines
from deploy.loop.run.world import World
from export.cli import app as export_app
from model.cli.data import app as data_app
from model.cli.train_evaluate import train_app
from model.errors import RunError
from service.common.errors import SettingsError
from service.common.loop_metrics import LoopMetrics
from service.common.loop_settings import LoopSettings
from service.common.metrics import value_of
from service.common.settings_loader import load_loop

NOW = 1_800_000_000.0
DAY_S = 86_400


# ── the schedule ────────────────────────────────────────────────────────────────────────────────────────


def begun(kind: Any, at: float, **more: Any) -> Cycle:
    name = datetime.fromtimestamp(at, UTC).strftime("%Y%m%d-%H%M%S")
    return Cycle(name, kind, iso(at), **more)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.sampled_from([7, 60, 1440]), st.booleans())
def test_what_is_due_is_what_a_minute_by_minute_clock_says(gaps: list[int], minutes: int, daily: bool) -> None:
    """The reference goes over every minute since the newest cycle, and looks for a time of the schedule."""
    schedule = Schedule.of(minutes, "03:00" if daily else "never")
    cycles, minute, last = [begun("increment", 0.0)], 0, {"increment": 0, "full": 0}
    for gap in gaps:
        minute += gap
        missed = {"increment": [m for m in range(last["increment"] + 1, minute + 1) if m % 1440 % minutes == 0],
                  "full": [m for m in range(last["full"] + 1, minute + 1) if daily and m % 1440 == 180]}  # fmt: skip
        expected = "full" if missed["full"] else "increment" if missed["increment"] else None
        due = schedule.due(cycles, minute * 60.0)
        assert (due[0] if due else None) == expected
        if due is not None:
            assert due[1] == missed[cast("str", expected)][-1] * 60.0
            cycles.append(begun(due[0], minute * 60.0))
            last["increment"] = minute
            last[due[0]] = minute
        assert schedule.next(minute * 60.0) > minute * 60.0


def test_the_first_increment_is_due_at_once_and_the_first_full_training_at_its_time() -> None:
    schedule = Schedule.of(60, "03:00")
    assert schedule.due([], NOW) == ("increment", NOW)
    assert schedule.due([begun("increment", NOW)], NOW + 1) is None


# ── the journal and the locks ───────────────────────────────────────────────────────────────────────────


def test_the_journal_reads_what_it_wrote_and_names_sort_by_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    one = journal.begun("full", NOW, NOW - 5, [])
    one.steps["begin"] = {"version": "v1"}
    journal.save(one)
    two = journal.begun("increment", NOW, None, journal.cycles())
    journal.save(two)
    three = journal.begun("increment", NOW - 10 * DAY_S, None, journal.cycles())
    journal.save(three)
    assert journal.cycles() == [one, two, three] and one.champion == "v1"
    assert seconds_of(one.due_at or "") == NOW - 5


@pytest.mark.parametrize(("content", "says"), [('{"format": 2}', "format 2"), ("{", "damaged"), ("[]", "damaged")])
def test_a_journal_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "20260101-000000.json").write_text(content)
    with pytest.raises(RunError, match=says) as raised:
        Journal(tmp_path).cycles()
    assert "20260101-000000.json" in str(raised.value)


def test_a_work_folder_has_one_loop_and_commands_keep_theirs(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with sole(tmp_path):
        assert "process" in (holder(tmp_path) or "")
        with pytest.raises(LockedError, match="another loop"), sole(tmp_path):
            pass
    assert holder(tmp_path) is None
    with commands(tmp_path) as first, commands(tmp_path) as second:
        assert first.free() and not second.free()


# ── how cycles end ──────────────────────────────────────────────────────────────────────────────────────


class FakeService:
    """A service that serves `old`, and whose canary does what `states` says, one look after the other."""

    def __init__(self, *states: Mapping[str, Any]) -> None:
        self.active, self.states, self.asked = "old", list(states), [""]
        self.refuses = self.started = False

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
        none = dict.fromkeys(("late", "failed", "below", "lists", "clicked", "click_through", "comparison"))
        answers = state.get("answers", 0)
        arms = [{"name": name, "answers": answers, **none} for name in ("champion", "candidate")]
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
        given = {"loop_canary_lists": 10, "loop_canary_steps": "0.1,1", "loop_attempts": 2, **more}
        own = LoopSettings(
            loop_work=str(folder / "work"), loop_log="log", loop_artifacts=str(folder / "models"),
            loop_run=str(folder / "run"), **given,
        )  # fmt: skip
        self.paused: Callable[[], None] = lambda: None
        self.journal, self.metrics = Journal(folder / "work"), LoopMetrics(CollectorRegistry())
        world = World(own, self.journal, self.runner, cast("Service", self.service), lambda: self.now, self._pause)
        self.loop = Loop(world, Schedule.of(60, "03:00"), self.metrics)

    async def _pause(self, seconds: float) -> None:
        self.now += seconds
        self.paused()

    def cycle(self, kind: Any = "increment") -> Cycle:
        return asyncio.run(self.loop.once(kind))


LAST = {"step": 2, "portion": 1.0}


def test_a_candidate_is_promoted_after_enough_lists_of_the_last_step(tmp_path: Path) -> None:
    states: list[dict[str, Any]] = []
    states += ({}, {"away": True}, {"answers": 50}, {**LAST, "answers": 60}, {**LAST, "answers": 69},
              {**LAST, "answers": 99, "counted": False}, {**LAST, "answers": 70})  # fmt: skip
    scene = Scene(tmp_path, *states)
    cycle = scene.cycle()
    assert (cycle.outcome, scene.service.active) == ("promoted", "new")
    assert cycle.steps["canary"]["arms"][0]["answers"] == 70
    assert (tmp_path / "models" / "latest").read_text() == "new\n" and (tmp_path / "models" / "new").is_dir()
    assert "--init" in scene.runner.ran[3] and value_of(scene.metrics.cycles, "increment", "promoted") == 1


ENDS: dict[str, tuple[Any, str, str]] = {
    "refused": ((), "refused", "recall@10 lost 9 %"),
    "returned": (({}, {"state": "returned", "cause": "late"}), "returned", "late"),
    "stopped": (({"state": "stopped", "cause": "me"},), "returned", "somebody stopped"),
    "timed_out": (({},), "timed_out", "undecided"),
    "shares": (({**LAST, "answers": 0}, {**LAST, "answers": 90, "shares_mismatch": True}), "returned", "shares"),
    "skipped": ((), "skipped", "3 new events"),
    "damaged": (({**LAST, "answers": 0}, {**LAST, "answers": 90}), "refused", "it is damaged"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_candidate_that_is_not_good_leaves_the_old_model_in_service(tmp_path: Path, name: str) -> None:
    given_states, outcome, says = ENDS[name]
    scene = Scene(tmp_path, *given_states)
    scene.runner.passed, scene.service.refuses = name != "refused", name == "damaged"
    scene.runner.new = 3 if name == "skipped" else 1000
    cycle = scene.cycle()
    assert (cycle.outcome, scene.service.active) == (outcome, "old")
    assert says in (cycle.reason or "")
    assert (scene.service.asked[-1].startswith("stop")) == (name in ("timed_out", "shares", "damaged"))
    assert not (tmp_path / "models" / "latest").exists()
    assert value_of(scene.metrics.without_promotion) == (0 if name == "skipped" else 1)


def test_a_model_that_somebody_else_activated_is_left_in_service(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.runner.fails["gate"] = 1
    with pytest.raises(AttemptError):
        scene.cycle()
    scene.service.active = "third"
    cycle = scene.cycle()
    assert (cycle.outcome, scene.service.active, scene.service.started) == ("superseded", "third", False)


def test_a_step_that_fails_is_tried_again_and_then_the_cycle_has_failed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {**LAST, "answers": 0}, {**LAST, "answers": 90})
    scene.runner.fails["train"] = 1
    with pytest.raises(AttemptError, match="the disk is full"):
        scene.cycle()
    [cycle] = scene.journal.cycles()
    assert (cycle.step, cycle.attempts, cycle.outcome) == ("train", 1, None)
    lines = "\n".join(status_lines(status(scene.journal, Schedule.of(60, "never"), NOW)))
    assert f"{cycle.id} is open" in lines and "the disk is full" in lines
    assert scene.cycle("full").kind == "increment"  # the open one is finished first
    scene.service.active, scene.runner.fails["data"] = "new", 2
    scene.now += 3600
    for _ in range(2):
        with pytest.raises(AttemptError):
            scene.cycle("full")
    assert [one.outcome for one in scene.journal.cycles()] == ["promoted", "failed"]
    assert value_of(scene.metrics.failures, "data") == 2 and value_of(scene.metrics.cycles, "full", "failed") == 1


def test_a_full_training_counts_what_came_since_the_last_one(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {**LAST, "answers": 0}, {**LAST, "answers": 90})
    scene.cycle()
    scene.runner.new, scene.service.active = 0, "new"
    scene.now += 60
    assert scene.cycle("increment").outcome == "skipped"
    scene.now += 60
    assert "the new model is the one in service" in (scene.cycle("full").reason or "")  # it was trained


def test_a_full_training_has_the_settings_of_the_first_run_unless_others_are_given(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {**LAST, "answers": 0}, {**LAST, "answers": 90})
    scene.cycle("full")
    train = next(one for one in scene.runner.ran if one.startswith("train"))
    assert f"--config {tmp_path / 'work' / 'full-config.json'}" in train and "--init" not in train


def test_the_schedule_is_kept_and_a_failed_step_is_tried_again_after_a_pause(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.now, scene.runner.new, scene.runner.fails["data"] = NOW - NOW % DAY_S + 600, 3, 1  # ten past midnight
    end = scene.now + 4 * 3600

    def paused() -> None:
        if scene.now >= end:
            raise asyncio.CancelledError
        if 3600 * 1.5 < scene.now % DAY_S < 3600 * 1.6:
            scene.now += 3600  # the machine sleeps through two o'clock

    scene.paused = paused
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scene.loop.run())
    cycles = scene.journal.cycles()
    minutes = [(one.kind, int(seconds_of(one.started_at) % DAY_S // 60)) for one in cycles]
    assert minutes == [("increment", 10), ("increment", 60), ("increment", 150), ("full", 180), ("increment", 240)]
    assert seconds_of(cycles[0].ended_at or "") - seconds_of(cycles[0].started_at) == 60
    assert value_of(scene.metrics.cycles, "increment", "skipped") == 4


# ── what is deleted ─────────────────────────────────────────────────────────────────────────────────────


def test_cycles_go_when_they_are_old_closed_and_nobody_needs_their_model() -> None:
    cycles = [begun("increment", NOW + n, outcome="promoted", steps={"export": {"version": f"v{n}"}}) for n in range(6)]
    cycles[1] = replace(cycles[1], outcome=None)
    assert [one.candidate for one in to_forget(cycles, {"v2"}, 2)] == ["v0", "v3"]


def test_old_cycles_are_deleted_with_what_they_published_and_what_is_in_service_stays(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {**LAST, "answers": 0}, {**LAST, "answers": 90}, loop_cycles_kept=1)
    first = scene.cycle()
    for outcome in ("v1", "v2", "v3"):
        scene.now += 60
        one = scene.journal.begun("increment", scene.now, None, scene.journal.cycles())
        one.outcome, one.ended_at, one.step = "refused", iso(scene.now), "canary"
        published = tmp_path / "models" / outcome
        one.steps = {"export": {"version": outcome}, "publish": {"path": str(published)}}
        for folder in (published, scene.journal.folder(one)):
            folder.mkdir(parents=True)
        scene.journal.save(one)
    scene.runner.new = 0
    scene.now += 60
    newest = scene.cycle()
    assert newest.outcome == "skipped"
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"old", "new", "latest"}
    left = {path.name for path in (tmp_path / "work" / "cycles").iterdir()}
    assert left == {first.id, newest.id} and len(scene.journal.cycles()) == 5


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────


def test_commands_run_in_processes_of_their_own_and_end_when_their_time_is_over(tmp_path: Path) -> None:
    async def both() -> tuple[Done, Done]:
        with commands(tmp_path) as shared:
            runner = Processes(shared.number)
            good = await runner.run(["--version"], tmp_path / "a.log")
            return good, await runner.run(["--help"], tmp_path / "b.log", timeout_s=0.0)

    good, late = asyncio.run(both())
    assert good.code == 0 and good.output.strip() and late.code is None
    assert (tmp_path / "a.log").read_text() == "$ gpt4rec --version\n"


def test_the_commands_know_the_arguments_that_they_are_given(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {**LAST, "answers": 0}, {**LAST, "answers": 90})
    scene.cycle("full")
    scene.service.active = "new"
    scene.now += 60
    scene.cycle()
    apps = {"data": data_app, "train": train_app, "export": export_app, "loop": loop_app}
    for line in scene.runner.ran[1:]:
        name, *given = line.split()
        if name in apps:
            command, context = get_command(apps[name]), None
            while isinstance(command, click.Group):
                context = click.Context(command, parent=context)
                command, given = command.commands[given[0]], given[1:]
            command.make_context(name, given, parent=context)
    assert {line.split()[0] for line in scene.runner.ran[1:]} == {*apps, "gate"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [({}, "LOOP_WORK"), ({"loop_work": "w"}, "LOOP_LOG"), ({"loop_canary_steps": "0.5,0.2"}, "ascending"),
     ({"loop_full_at": "25:00"}, "LOOP_FULL_AT"), ({"loop_canary_steps": "1.2.3"}, "LOOP_CANARY_STEPS")],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_named(flags: dict[str, str], says: str) -> None:
    folders = (
        {} if "loop_canary_steps" not in flags else dict.fromkeys(("loop_work", "loop_log", "loop_artifacts"), "x")
    )
    with pytest.raises(SettingsError, match=says):
        load_loop(**folders, **flags)


def test_an_ops_token_comes_from_a_file_of_tokens_too(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("alice:secret\nbob:other\n")
    assert token_of("", str(tmp_path / "tokens")) == "secret" and token_of("given", "nowhere") == "given"
    with pytest.raises(RunError, match="cannot be read"):
        token_of("", str(tmp_path / "none"))
