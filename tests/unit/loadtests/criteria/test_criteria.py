"""The commands that measure the criteria: their arithmetic, their switches, and two of them on a real service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loadtests.common import results
from loadtests.criteria.__main__ import MEASURES, command
from loadtests.criteria.reflected import _same
from loadtests.criteria.soak import growth
from loadtests.harness.bench import batches, history, real_histories
from loadtests.harness.served_process import NotReadyError, Process, serve, started
from loadtests.load.replay import User


def criteria(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests.criteria", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [([100.0] * 10, 0.0), ([100.0] * 5 + [100.0, 101.0, 102.0, 103.0, 104.0], 0.04), ([50.0, 90.0, 100.0], 0.0),
     ([1.0, 2.0, 3.0, 4.0, 100.0, 100.0, 100.0, 100.0], 0.0)],
    ids=["flat", "rising", "too-few", "only-at-the-start"],
)  # fmt: skip
def test_growth_is_that_of_the_second_half(samples: list[float], expected: float) -> None:
    assert growth(samples) == pytest.approx(expected, abs=1e-9)


def test_histories_end_before_now_and_go_in_batches_that_lose_nothing() -> None:
    told = history("u", [str(n) for n in range(1203)])
    assert np.all(np.diff([event["timestamp"] for event in told]) == 60_000)
    bodies = list(batches(told, 500))
    assert len(bodies) == 3
    assert sum(body.body.count(b"item_id") for body in bodies) == 1203


def test_only_users_with_enough_events_are_taken() -> None:
    users = [User(str(n), ["i"] * n, ["view"] * n, np.arange(n), [0]) for n in (10, 60, 300)]
    assert {name: len(items) for name, items in real_histories(users, 5, least=50, longest=100).items()} == {
        "60": 60, "300": 100,
    }  # fmt: skip
    with pytest.raises(ValueError, match="no user"):
        real_histories(users, 5, least=500, longest=1000)


def test_lists_are_the_same_up_to_ties() -> None:
    def listed(*items: tuple[str, float]) -> dict[str, list[dict[str, object]]]:
        return {"items": [{"item_id": item, "score": score} for item, score in items]}

    assert _same(listed(("a", -1.0), ("b", -2.0)), listed(("a", -1.1), ("b", -2.2)))
    assert _same(listed(("a", -1.0), ("b", -1.0001)), listed(("b", -1.0001), ("a", -1.0)))
    assert not _same(listed(("a", -1.0)), listed(("b", -2.0)))
    assert not _same(listed(("a", -1.0)), listed(("a", -1.0), ("b", -2.0)))


def test_processor_time_and_memory_of_a_process_are_read() -> None:
    own = Process(os.getpid())
    before = own.cpu_s()
    assert sum(n * n for n in range(300_000)) > 0
    assert own.cpu_s() > before
    assert 0 < own.private_mib() <= own.rss_mib() * 1.05
    assert own.maps("python")
    assert own.child("no-such-process") is None


def test_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="nothing"), serve(tmp_path / "nothing"):
        pass
    failing = [sys.executable, "-c", "raise SystemExit('cannot')"]
    with pytest.raises(NotReadyError, match="cannot"), started(failing, "/", tmp_path / "log"):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("nothing", "--artifact", "a"), "all, or one of"), (("cpu", "--artifact", "a"), "is needed"),
     (("start", "--artifact", "a", "--quick"), "folder of its own")],
    ids=["unknown", "no-data", "quick-into-the-results"],
)  # fmt: skip
def test_a_bad_call_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = criteria(*arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_what_cannot_be_measured_is_said_and_exits_1(tmp_path: Path) -> None:
    done = criteria("start", "--quick", "--artifact", str(tmp_path), "--out", str(tmp_path / "out"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "no figures of start" in done.stderr


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_the_command_of_a_row_can_be_typed_again(name: str) -> None:
    words = command(name).split()
    assert words[:4] == ["python", "-m", "loadtests.criteria", name]
    assert ("--data" in words) is MEASURES[name][1]


def test_measures_write_their_rows(random_artifact: Path, tmp_path: Path) -> None:
    for name, rows in (("start", {"7 start", "7 start memory", "7 start torch"}),
                       ("history", {"4 history p50", "4 history event"})):  # fmt: skip
        out = tmp_path / name
        done = criteria(name, "--quick", "--artifact", str(random_artifact), "--out", str(out))
        assert done.returncode == 0, done.stdout + done.stderr
        found = {row["criterion"]: row for row in results.read_rows(out / "engine.json")}
        assert set(found) == rows
        assert all(row["command"] == command(name) for row in found.values())
        assert results.load(name, out) is not None
