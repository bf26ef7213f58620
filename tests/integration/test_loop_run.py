"""The loop on a real service: killed everywhere it ends as if nothing had happened; the old model stays until then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.common.meanwhile import meanwhile
from loadtests.harness import served_process
from service.metrics.loop_metrics import STEPS

TOKEN = "tok"
SETTINGS = {"GPT4REC_OPS_TOKENS": f"alice:{TOKEN}", "GPT4REC_DEADLINE_MS": "5000", "GPT4REC_DEADLINE_MAX_MS": "5000"}
PATIENCE_S = 60.0


class Driver:
    """Starts the loop; see `tests.support.loop_driver`."""

    def __init__(self, config: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "tests.support.loop_driver", json.dumps(config)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def begin(self, crash: str | None = None, **settings: Any) -> int:
        """The process id of a start."""
        return self._ask(crash=crash, settings=settings)

    def ended(self, process: int) -> int:
        """The exit code of a start."""
        return self._ask(wait=process)

    def run(self, crash: str | None = None, **settings: Any) -> int:
        return self.ended(self.begin(crash, **settings))

    def _ask(self, **told: Any) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # with what it has forked
        self._process.communicate()


@dataclass
class Scene:
    ops: httpx.Client
    driver: Driver
    work: Path
    artifacts: Path
    old: str
    new: str

    @property
    def active(self) -> str:
        return str(self.ops.get("/ops/models").json()["active"])

    def cycles(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.work / "journal").glob("*.json"))]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, random_artifact: Path) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("loop")
    artifacts, work, run = folder / "models", folder / "work", folder / "run"
    old, candidate = named(random_artifact, artifacts / "old"), named(random_artifact, folder / "made" / "new")
    run.mkdir()
    fingerprint = json.loads((old / "manifest.json").read_text()).get("data", {}).get("fingerprint")
    (run / "run.json").write_text(json.dumps({"data": {"path": str(folder), "fingerprint": fingerprint}}))
    (run / "config.json").write_text("{}")
    with served_process.serve(artifacts, **SETTINGS) as served:
        loop = {
            "loop_work": str(work), "loop_log": str(folder / "log"), "loop_artifacts": str(artifacts),
            "loop_run": str(run), "loop_canary_steps": "1", "loop_canary_lists": 1, "loop_canary_clicked": 0,
            "loop_poll_s": 0.05,
            "loop_metrics_port": 0,
        }  # fmt: skip
        config = {"settings": loop, "url": served.url, "token": TOKEN, "candidate": str(candidate)}
        driver = Driver(config)
        ops = httpx.Client(base_url=served.url, timeout=PATIENCE_S, headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            yield Scene(ops, driver, work, artifacts, old.name, candidate.name)
        finally:
            driver.close()
            ops.close()


def named(artifact: Path, target: Path) -> Path:
    """Copies an artefact as another version."""
    shutil.copytree(artifact, target)
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    (target / "manifest.json").write_text(json.dumps({**manifest, "model_version": target.name}), encoding="utf-8")
    (target.parent / "latest").write_text(target.name, encoding="utf-8")
    return target


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def traffic(ops: httpx.Client) -> AbstractContextManager[None]:
    """Users that ask until the body ends."""

    def ask(over: threading.Event) -> None:
        number = 0
        while not over.wait(0.02):
            number += 1
            ops.post("/recommend", json={"user_id": f"u{number % 20}", "k": 3})

    return meanwhile(ask)


def test_a_loop_that_is_killed_everywhere_promotes_in_the_end_and_the_old_model_stays_until_then(scene: Scene) -> None:
    for step in STEPS[:-1]:
        for place in ("before", "inside"):
            assert scene.driver.run(f"{step}:{place}") == -signal.SIGKILL, step
            assert scene.active == scene.old
    [cycle] = scene.cycles()
    assert (cycle["outcome"], cycle["step"]) == (None, "canary")

    # It waits for lists: a second loop is refused, and a signal leaves the step to the next start.
    process = scene.driver.begin()
    until(lambda: "watched_from" in scene.cycles()[0]["steps"]["canary"])
    assert scene.driver.run() == 4
    os.kill(process, signal.SIGTERM)
    assert scene.driver.ended(process) == 5
    assert scene.active == scene.old

    with traffic(scene.ops):
        assert scene.driver.run("promote:before") == -signal.SIGKILL
        assert scene.active == scene.old
        assert scene.driver.run("promote:inside") == -signal.SIGKILL
        assert scene.active == scene.new
        assert scene.driver.run() == 0
    [cycle] = scene.cycles()
    assert (cycle["outcome"], cycle["champion"], cycle["candidate"]) == ("promoted", scene.old, scene.new)
    assert [step for step in STEPS if "ended_at" not in cycle["steps"][step]] == []
    assert (scene.artifacts / "latest").read_text().strip() == scene.new == scene.active
    assert scene.ops.get(f"/ops/experiments/loop-{cycle['id']}").json()["state"] == "promoted"
    assert not [path for path in scene.artifacts.iterdir() if path.name.startswith(".")]


def test_the_next_cycle_goes_on_from_the_run_of_the_last_one(scene: Scene) -> None:
    assert scene.active == scene.new
    assert scene.driver.run(loop_canary=False) == 0  # the stand-in exports the same model once more
    *_, before, cycle = scene.cycles()
    assert cycle["steps"]["begin"]["run"] == before["steps"]["train"]["run"]
    assert (cycle["outcome"], cycle["candidate"]) == ("skipped", None)
    assert scene.active == scene.new
