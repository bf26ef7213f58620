"""How cycles of the loop end, when they are begun, and what is deleted behind them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.loop.run.cycle import AttemptError
from deploy.loop.run.journal import iso, seconds_of
from deploy.loop.run.retention import keep_house, to_forget, without_data
from deploy.loop.run.schedule import Schedule
from deploy.loop.run.telling import status, status_lines
from service.metrics.service_metrics import value_of
from tests.support.loop_scene import NOW, Scene, begun

DAY_S = 86_400


# ── how cycles end ──────────────────────────────────────────────────────────────────────────────────────


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


def test_a_canary_without_joined_clicks_is_promoted_only_where_that_was_said(tmp_path: Path) -> None:
    enough = ({**LAST, "answers": 0}, {**LAST, "answers": 90})
    waits = Scene(tmp_path / "waits", *enough, loop_canary_clicked=50).cycle()
    assert waits.outcome == "timed_out"
    assert "fewer clicked lists" in (waits.reason or "")
    joined = Scene(tmp_path / "joined", *enough, {**LAST, "answers": 95, "clicked": 50}, loop_canary_clicked=50).cycle()
    assert (joined.outcome, joined.steps["canary"]["judged_by_clicks"]) == ("promoted", True)
    said = Scene(tmp_path / "said", *enough, loop_canary_clicked=0).cycle()
    assert (said.outcome, said.steps["canary"]["judged_by_clicks"]) == ("promoted", False)


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


def test_copies_of_what_users_did_go_unless_the_next_cycle_may_go_on_from_them(tmp_path: Path) -> None:
    scene = Scene(tmp_path, loop_cycles_kept=5)
    scene.service.active = "v2"
    held = scene.service.experiments

    async def experiments() -> dict[str, Any]:
        return {**await held(), "holdout": {"model": "v1"}}

    scene.service.experiments = experiments  # type: ignore[method-assign]
    for version in ("v1", "v2", "v3"):
        scene.now += 60
        one = scene.journal.begun("increment", scene.now, None, scene.journal.cycles())
        one.outcome, one.ended_at, one.steps = "promoted", iso(scene.now), {"export": {"version": version}}
        for name in ("data", "run/log", "artifact"):
            (scene.journal.folder(one) / name).mkdir(parents=True)
        scene.journal.save(one)
    asyncio.run(keep_house(scene.world))
    left = {
        cycle.candidate: {
            name for name in ("data", "run/log", "artifact") if (scene.journal.folder(cycle) / name).exists()
        }
        for cycle in scene.journal.cycles()
    }
    assert left == {"v1": {"artifact"}, "v2": {"data", "run/log", "artifact"}, "v3": {"artifact"}}


def test_an_open_cycle_keeps_its_data_and_that_of_its_champion() -> None:
    made = [begun("increment", NOW + n, outcome="promoted", steps={"export": {"version": f"v{n}"}}) for n in range(3)]
    going = begun("increment", NOW + 9, outcome=None, steps={"begin": {"version": "v1"}})
    assert [one.candidate for one in without_data([*made, going], {"v2"})] == ["v0"]
