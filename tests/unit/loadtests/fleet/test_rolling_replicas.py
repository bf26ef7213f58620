"""What replicas of this release and of an older one are told."""

from __future__ import annotations

from pathlib import Path

from loadtests.fleet.replicas import SETTINGS, SHUTDOWN_DELAY_S, Release
from loadtests.harness.checkout import Checkout
from loadtests.harness.served_process import REPOSITORY
from service.settings.service_settings import variable_names


def test_every_setting_of_a_replica_is_one_of_this_release(tmp_path: Path) -> None:
    told = Release("this", tmp_path).environment()
    assert told.keys() >= SETTINGS.keys()
    assert {name for name in told if name.startswith("GPT4REC_")} <= set(variable_names())
    assert float(told["GPT4REC_SHUTDOWN_DELAY_S"]) == SHUTDOWN_DELAY_S


def test_an_older_release_is_told_only_what_it_knows_and_runs_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "service").symlink_to(REPOSITORY / "service")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "reference.md").write_text("| `GPT4REC_DEADLINE_MS` | `80.0` | Budget. |\n")
    told = Release("old", tmp_path, Checkout(tmp_path)).environment()
    assert {name for name in told if name.startswith("GPT4REC_")} == {"GPT4REC_DEADLINE_MS"}
    assert told["PYTHONPATH"] == str(tmp_path)
