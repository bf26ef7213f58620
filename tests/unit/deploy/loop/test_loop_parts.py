"""The parts of the loop: when cycles are due, what the journal and the locks keep, commands and settings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from deploy.loop.command import app as loop_app
from deploy.loop.run import process
from deploy.loop.run.command import LOCKED
from deploy.loop.run.gpt4rec import Done, Processes
from deploy.loop.run.journal import Journal, seconds_of
from deploy.loop.run.locks import LockedError, commands, holder, sole
from deploy.loop.run.schedule import Schedule
from deploy.loop.run.service import token_of
from export.cli import app as export_app
from model.cli.data import app as data_app
from model.cli.train_evaluate import train_app
from model.errors import RunError
from service.common import logs
from service.common.errors import SettingsError
from service.settings.loader import load_loop
from tests.support.loop_scene import NOW, Scene, begun

DAY_S = 86_400
LAST = {"step": 2, "portion": 1.0}


# ── the schedule ────────────────────────────────────────────────────────────────────────────────────────


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


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path)
    scene.runner.new = 7
    monkeypatch.setattr(process, "Service", lambda *_: scene.service)
    monkeypatch.setattr(process, "Processes", lambda _: scene.runner)
    said = "\n".join(process.dry_run(scene.own, "url", "token", "full"))
    assert "A new full" in said and "take old, the model in service" in said and "train everything anew" in said
    assert "7 now; with fewer than 500 the cycle ends here" in said
    assert not (tmp_path / "work").exists() and [line.split()[0] for line in scene.runner.ran[1:]] == ["data"]


def test_the_commands_say_what_is_so_by_their_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # it would outlive the stream of this shell
    scene = Scene(tmp_path)
    scene.runner.passed = False
    cycle = scene.cycle()
    shell, work = CliRunner(), ["--work", str(tmp_path / "work")]
    told = json.loads(shell.invoke(loop_app, ["status", *work, "--json"]).stdout)
    assert (told["holder"], told["open"], told["cycles"][0]["outcome"]) == (None, None, "refused")
    assert f"{cycle.id}  increment  refused: the gate" in shell.invoke(loop_app, ["status", *work]).stdout
    run = ["run", *work, "--log", "x", "--artifacts", "y"]
    assert shell.invoke(loop_app, [*run, "--full"]).exit_code == 2
    with sole(tmp_path / "work"):
        assert shell.invoke(loop_app, [*run, "--once"]).exit_code == LOCKED
    (tmp_path / "work" / "journal" / f"{cycle.id}.json").write_text("{")
    assert shell.invoke(loop_app, ["status", *work]).exit_code == 1
